//! What a volume's files come from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::atomic::{Payload, Projected};
use crate::node::objects::{Kind, Objects, Seen, Watched};
use crate::node::pod::env::field;

/// How long a token is asked to be valid where the volume does not say.
const TOKEN_SECONDS: i64 = 3600;
/// How soon a token that was refused is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// All sources of one volume.
pub(super) struct Content {
    sources: Vec<Source>,
    mode: u32,
}

enum Source {
    Object {
        kind: Kind,
        name: String,
        items: Vec<KeyToPath>,
        optional: bool,
    },
    Downward(Vec<DownwardAPIVolumeFile>),
    Token(ServiceAccountTokenProjection),
}

/// A volume's files, or why it has none.
pub(super) enum Gathered {
    Files(Payload),
    Missing(String),
}

fn mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|mode| u32::try_from(mode).ok())
}

impl Content {
    /// The sources of a volume, if it is of a kind that has any.
    pub(super) fn of(volume: &Volume) -> Option<Self> {
        let (sources, given) = if let Some(map) = &volume.config_map {
            let optional = map.optional.unwrap_or_default();
            let items = map.items.clone().unwrap_or_default();
            let name = map.name.clone();
            let kind = Kind::ConfigMap;
            (
                vec![Source::Object {
                    kind,
                    name,
                    items,
                    optional,
                }],
                map.default_mode,
            )
        } else if let Some(secret) = &volume.secret {
            let optional = secret.optional.unwrap_or_default();
            let items = secret.items.clone().unwrap_or_default();
            let name = secret.secret_name.clone().unwrap_or_default();
            let kind = Kind::Secret;
            (
                vec![Source::Object {
                    kind,
                    name,
                    items,
                    optional,
                }],
                secret.default_mode,
            )
        } else if let Some(downward) = &volume.downward_api {
            let items = downward.items.clone().unwrap_or_default();
            (vec![Source::Downward(items)], downward.default_mode)
        } else if let Some(projected) = &volume.projected {
            let sources = projected.sources.iter().flatten();
            (
                sources.flat_map(Source::of).collect(),
                projected.default_mode,
            )
        } else {
            return None;
        };
        Some(Self {
            sources,
            mode: mode(given).unwrap_or(0o644),
        })
    }

    /// Watches every object the volume refers to, in the order in which [`Self::gather`] takes them.
    pub(super) fn watch(&self, objects: &Objects, namespace: &str) -> Vec<Arc<Watched>> {
        let sources = self.sources.iter();
        sources
            .filter_map(|source| match source {
                Source::Object { kind, name, .. } => Some(objects.watch(*kind, namespace, name)),
                _ => None,
            })
            .collect()
    }

    /// Whether the files depend on the pod's own fields.
    pub(super) fn follows_pod(&self) -> bool {
        self.sources
            .iter()
            .any(|source| matches!(source, Source::Downward(_)))
    }

    /// The volume's files as they should be now.
    pub(super) async fn gather(
        &self,
        pod: &Pod,
        seen: &[watch::Receiver<Seen>],
        tokens: &mut Tokens,
    ) -> Gathered {
        let mut payload = Payload::new();
        let mut seen = seen.iter();
        for source in &self.sources {
            let added = match source {
                Source::Object {
                    kind,
                    name,
                    items,
                    optional,
                } => {
                    let seen = seen.next().map(|seen| seen.borrow().clone());
                    self.object(&mut payload, (*kind, name), items, *optional, seen)
                }
                Source::Downward(files) => self.downward(&mut payload, files, pod),
                Source::Token(projection) => match tokens.token(pod, projection).await {
                    Ok(token) => {
                        payload
                            .insert(projection.path.clone(), self.file(token.into_bytes(), None));
                        Ok(())
                    }
                    Err(reason) => Err(format!("failed to fetch token: {reason}")),
                },
            };
            if let Err(reason) = added {
                return Gathered::Missing(reason);
            }
        }
        Gathered::Files(payload)
    }

    fn file(&self, data: Vec<u8>, mode: Option<i32>) -> Projected {
        Projected {
            data,
            mode: self::mode(mode).unwrap_or(self.mode),
        }
    }

    fn object(
        &self,
        payload: &mut Payload,
        (kind, name): (Kind, &str),
        items: &[KeyToPath],
        optional: bool,
        seen: Option<Seen>,
    ) -> Result<(), String> {
        let Some(Seen::Present(data)) = seen else {
            return if optional {
                Ok(())
            } else {
                Err(format!("{kind} {name:?} not found"))
            };
        };
        if items.is_empty() {
            for (key, value) in data.iter() {
                payload.insert(key.clone(), self.file(value.clone(), None));
            }
        }
        for item in items {
            match data.get(&item.key) {
                Some(value) => {
                    let file = self.file(value.clone(), item.mode);
                    payload.insert(item.path.clone(), file);
                }
                None if optional => {}
                None => {
                    return Err(format!(
                        "{kind} references non-existent config key: {}",
                        item.key
                    ));
                }
            }
        }
        Ok(())
    }

    fn downward(
        &self,
        payload: &mut Payload,
        files: &[DownwardAPIVolumeFile],
        pod: &Pod,
    ) -> Result<(), String> {
        for file in files {
            let reference = file.field_ref.as_ref().ok_or_else(|| {
                format!(
                    "{}: the lab has no resourceFieldRef, only fieldRef",
                    file.path
                )
            })?;
            let value = field(pod, &reference.field_path)?;
            payload.insert(file.path.clone(), self.file(value.into_bytes(), file.mode));
        }
        Ok(())
    }
}

impl Source {
    fn of(projection: &VolumeProjection) -> Option<Self> {
        if let Some(map) = &projection.config_map {
            return Some(Self::Object {
                kind: Kind::ConfigMap,
                name: map.name.clone(),
                items: map.items.clone().unwrap_or_default(),
                optional: map.optional.unwrap_or_default(),
            });
        }
        if let Some(secret) = &projection.secret {
            return Some(Self::Object {
                kind: Kind::Secret,
                name: secret.name.clone(),
                items: secret.items.clone().unwrap_or_default(),
                optional: secret.optional.unwrap_or_default(),
            });
        }
        if let Some(downward) = &projection.downward_api {
            return Some(Self::Downward(downward.items.clone().unwrap_or_default()));
        }
        projection.service_account_token.clone().map(Self::Token)
    }
}

/// The tokens of one volume, each renewed when four fifths of its time are over.
pub(super) struct Tokens {
    client: Client,
    held: BTreeMap<String, String>,
    renewal: Option<Instant>,
}

impl Tokens {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            held: BTreeMap::new(),
            renewal: None,
        }
    }

    async fn token(
        &mut self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        if let Some(token) = self.held.get(&projection.path) {
            return Ok(token.clone());
        }
        let namespace = pod.namespace().unwrap_or_default();
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let seconds = projection.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: projection.audience.clone().into_iter().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(seconds),
            },
            ..TokenRequest::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &namespace);
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await;
        let token = match answer {
            Ok(TokenRequest {
                status: Some(status),
                ..
            }) => Ok(status.token),
            Ok(_) => Err(format!(
                "serviceaccount {account:?}: the answer has no token"
            )),
            Err(error) => Err(format!("serviceaccount {account:?}: {error}")),
        };
        let life = u64::try_from(seconds).unwrap_or_default();
        let wait = if token.is_ok() {
            Duration::from_secs(life * 4 / 5)
        } else {
            RETRY
        };
        let renewal = Instant::now() + wait;
        self.renewal = Some(self.renewal.map_or(renewal, |earlier| earlier.min(renewal)));
        let token = token?;
        self.held.insert(projection.path.clone(), token.clone());
        Ok(token)
    }

    /// Waits until tokens have to be asked for again, and forgets those that are held.
    pub(super) async fn renewal(&mut self) {
        match self.renewal {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.renewal = None;
        self.held.clear();
    }
}
