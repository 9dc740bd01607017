//! Runs steps against a server and the model side by side.
//!
//! Start from [`Run::steps`]: the first answer that is not the model's ends it with an error.

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use serde_json::{Value, json};

use crate::kinds::{ALL, Kind, label};
use crate::lists::Page;
use crate::op::{At, Content, Form, Guard, Propagation, Select, Step, Sub};
use crate::plan::{self, Plan, Request};
use crate::watch::Watcher;
use crate::wire::{Answer, ask};
use crate::world::{Model, Object, Refusal, Rules, name};

pub(crate) struct Run<'a> {
    pub(crate) client: Client,
    pub(crate) model: Model,
    watchers: Vec<Watcher>,
    pub(crate) page: Option<Page>,
    /// How this server is told to forget its history; a cluster is not.
    compact: Option<&'a dyn Fn()>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        client: Client,
        rules: Rules,
        namespace: String,
        compact: Option<&'a dyn Fn()>,
    ) -> Self {
        let model = Model::new(rules, namespace);
        Self {
            client,
            model,
            watchers: Vec::new(),
            page: None,
            compact,
        }
    }

    /// Every step, and at the end that nothing is left over.
    pub(crate) async fn steps(&mut self, steps: &[Step]) -> Result<()> {
        for (at, step) in steps.iter().enumerate() {
            if self.is_ours(step) {
                let done = self.step(step).await;
                done.with_context(|| format!("step {at}: {step:?}"))?;
            }
        }
        for kind in ALL {
            self.list(kind, Select::All).await.context("at the end")?;
        }
        self.rest().await.context("at the end")?;
        self.end_watches().await.context("at the end")
    }

    /// Whether nobody else would act on it.
    fn is_ours(&self, step: &Step) -> bool {
        let at = match step {
            Step::Create { at, .. }
            | Step::Update { at, .. }
            | Step::Patch { at, .. }
            | Step::Apply { at, .. }
            | Step::Status { at, .. }
            | Step::Scale { at, .. }
            | Step::Delete { at, .. } => Some(at),
            _ => None,
        };
        let acted_on = at.is_some_and(|at| {
            at.kind == Kind::Deployment || (at.kind == Kind::Pod && at.name == 1)
        }) || matches!(
            step,
            Step::Delete {
                propagation: Some(Propagation::Foreground | Propagation::Orphan),
                ..
            }
        );
        // Not worth their keep: a write to the status makes a Service that is not there; who manages what
        // nobody did, once a status is applied, is each kind's own, and before 1.22 the whole
        // object's; and a strategic patch's null for a map
        // that is not there was an empty text before 1.24.
        let absent = |object: &Object, pointer: &str| {
            let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
            object.value.pointer(parent).is_none()
        };
        let odd = match step {
            Step::Status { at, form, .. } => match self.model.objects.get(at) {
                None => at.kind == Kind::Service,
                Some(object) => {
                    let shared = self.model.rules.minor < 22;
                    *form == Sub::Apply && (shared || object.managers.0.is_empty())
                }
            },
            Step::Patch {
                at,
                form: Form::Strategic,
                edits,
                ..
            } => self.model.objects.get(at).is_some_and(|object| {
                let changes = edits.iter().flat_map(|edit| at.kind.assignments(*edit));
                self.model.rules.minor < 24
                    && changes
                        .into_iter()
                        .any(|(pointer, value)| value.is_none() && absent(object, pointer))
            }),
            _ => false,
        };
        !(odd || self.model.rules.controllers && acted_on)
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        if let Some(plan) = plan::write(&self.model, step) {
            return self.write(plan).await;
        }
        match *step {
            Step::Delete {
                at,
                propagation,
                guard,
                grace,
                dry,
            } => self.delete(at, propagation, guard, grace, dry).await,
            Step::DeleteAll { kind, select } => self.delete_all(kind, select).await,
            Step::List { kind, select } => self.list(kind, select).await,
            Step::Page { kind } => self.page(kind).await,
            Step::Rest => self.rest().await,
            Step::Watch { kind, select, from } => {
                if self.watchers.len() < 4 {
                    let watcher =
                        Watcher::begin(&self.client, &self.model, kind, select, from).await?;
                    self.watchers.push(watcher);
                }
                Ok(())
            }
            Step::Cut { watcher, after } => match self.watchers.get_mut(usize::from(watcher)) {
                Some(watcher) => {
                    watcher
                        .read(&self.client, &self.model, usize::from(after))
                        .await?;
                    watcher.reconnect(&self.client, &self.model).await
                }
                None => Ok(()),
            },
            Step::Compact => {
                if let Some(compact) = self.compact {
                    compact();
                    self.model.forgotten = self.model.history.len();
                }
                Ok(())
            }
            _ => bail!("a write without a plan"),
        }
    }

    async fn write(&mut self, plan: Plan) -> Result<()> {
        let mut answer = ask(&self.client, &plan.request).await?;
        let told = format!(
            "{:?} is answered {} {}",
            plan.request, answer.code, answer.body
        );
        let written = match plan.outcome {
            Err(refusal) => return refused(&refusal, &answer).context(told),
            Ok(written) => written,
        };
        ensure!(answer.code == plan.code, "{told}, not {}", plan.code);
        if plan.scale {
            let object = self.get(self.model.path(plan.at)).await?;
            is_scale_of(&answer.body, &object)?;
            answer.body = object;
        }
        self.model
            .accept(plan.at, written, &answer.body, plan.dry)
            .context(told)?;
        // What is served is what was answered; what is gone is not.
        let served = ask(&self.client, &get(self.model.path(plan.at))).await?;
        match self.model.objects.get(&plan.at) {
            Some(object) => ensure!(
                served.body == object.value,
                "served is {}, not {}",
                served.body,
                object.value
            ),
            None => ensure!(served.code == 404, "it should be gone: {}", served.body),
        }
        Ok(())
    }

    async fn get(&self, path: String) -> Result<Value> {
        let answer = ask(&self.client, &get(path)).await?;
        ensure!(answer.code == 200, "a GET is answered {}", answer.body);
        Ok(answer.body)
    }

    async fn delete(
        &mut self,
        at: At,
        propagation: Option<Propagation>,
        guard: Guard,
        grace: Option<u8>,
        dry: bool,
    ) -> Result<()> {
        let outcome = self.model.deletion(at, propagation, guard, grace);
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(propagation) = propagation {
            body["propagationPolicy"] = format!("{propagation:?}").into();
        }
        if let Some(grace) = grace {
            body["gracePeriodSeconds"] = grace.into();
        }
        let known = self
            .model
            .objects
            .get(&at)
            .map(|object| object.value["metadata"]["uid"].clone());
        match guard {
            Guard::None => {}
            Guard::Uid => body["preconditions"] = json!({"uid": known}),
            Guard::OtherUid => {
                body["preconditions"] = json!({"uid": "00000000-0000-4000-8000-000000000000"})
            }
            Guard::Version(version) => {
                if let (Some(sent), _) = self.model.version(at, version) {
                    body["preconditions"] = json!({"resourceVersion": sent});
                }
            }
        }
        if dry {
            body["dryRun"] = json!(["All"]);
        }
        let request = Request {
            method: "DELETE",
            path: self.model.path(at),
            media: "application/json",
            body,
        };
        let mut answer = ask(&self.client, &request).await?;
        let told = format!("{request:?} is answered {} {}", answer.code, answer.body);
        let deletion = match outcome {
            Err(refusal) => return refused(&refusal, &answer).context(told),
            Ok(deletion) => deletion,
        };
        ensure!(answer.code == 200, "{told}");
        let success = answer.body["kind"] == "Status" && answer.body["status"] == "Success";
        if deletion.removed {
            let details = &answer.body["details"];
            let named = success
                && details["name"] == name(at.name)
                && Some(&details["uid"]) == known.as_ref();
            let whole = Some(&answer.body["metadata"]["uid"]) == known.as_ref();
            ensure!(named || whole, "{told}, which names nothing");
        }
        if dry {
            return Ok(());
        }
        // Before 1.23 a Service's deletion tells a success when it waits for finalizers, too.
        let tells_less = at.kind == Kind::Service && self.model.rules.minor < 23;
        if !deletion.removed && success {
            ensure!(tells_less, "{told}, but it is not gone");
            answer.body = self.get(self.model.path(at)).await?;
        }
        self.model
            .delete(at, deletion, Some(&answer.body))
            .context(told)?;
        let served = ask(&self.client, &get(self.model.path(at))).await?;
        ensure!(
            (served.code == 200) == self.model.objects.contains_key(&at),
            "after it: {}",
            served.body
        );
        Ok(())
    }

    async fn delete_all(&mut self, kind: Kind, select: Select) -> Result<()> {
        // Services have it only in newer versions; and before 1.22 the first pod's time was the others'.
        let odd = match kind {
            Kind::Service => true,
            Kind::Deployment => self.model.rules.controllers,
            Kind::Pod => self.model.rules.minor < 22,
            _ => false,
        };
        if odd {
            return Ok(());
        }
        let path = self.model.listing(kind, select, "").path;
        let request = Request {
            method: "DELETE",
            path,
            media: "application/json",
            body: Value::Null,
        };
        let answer = ask(&self.client, &request).await?;
        let chosen: Vec<At> = self
            .model
            .selected(kind, select)
            .map(|(at, _)| at)
            .collect();
        let listed = answer.body["items"].as_array().map_or(0, Vec::len);
        ensure!(
            answer.code == 200 && listed == chosen.len(),
            "{request:?} is answered {} {}",
            answer.code,
            answer.body
        );
        for at in chosen {
            let deletion = self
                .model
                .deletion(at, None, Guard::None, None)
                .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
            let kept = if deletion.removed {
                None
            } else {
                Some(self.get(self.model.path(at)).await?)
            };
            self.model.delete(at, deletion, kept.as_ref())?;
        }
        Ok(())
    }

    /// Watchers have been told everything, and nothing else: the next thing they hear of is the last.
    async fn end_watches(&mut self) -> Result<()> {
        for watcher in &mut self.watchers {
            watcher.read(&self.client, &self.model, usize::MAX).await?;
        }
        if self.watchers.is_empty() {
            return Ok(());
        }
        for (kind, number) in ALL
            .into_iter()
            .flat_map(|kind| [0, 1, 2].map(|number| (kind, number)))
        {
            if self.model.rules.controllers && kind == Kind::Deployment {
                continue;
            }
            let name = format!("z-{}", label(number).unwrap_or("none"));
            let body = kind.object(
                &name,
                &Content {
                    label: number,
                    ..Content::default()
                },
            );
            let request = Request {
                method: "POST",
                path: self.model.collection(kind),
                media: "application/json",
                body,
            };
            let answer = ask(&self.client, &request).await?;
            ensure!(
                answer.code == 201,
                "{request:?} is answered {}",
                answer.body
            );
            for watcher in &mut self.watchers {
                watcher
                    .ends_with(&self.model, kind, &name, &answer.body)
                    .await?;
            }
        }
        Ok(())
    }
}

fn get(path: String) -> Request {
    Request {
        method: "GET",
        path,
        media: "application/json",
        body: Value::Null,
    }
}

fn refused(refusal: &Refusal, answer: &Answer) -> Result<()> {
    let (code, reason) = (
        answer.code,
        answer.body["reason"].as_str().unwrap_or_default(),
    );
    ensure!(
        code == refusal.code && reason == refusal.reason,
        "the answer should be {} {}",
        refusal.code,
        refusal.reason
    );
    if !refusal.conflicts.is_empty() {
        let causes = answer.body["details"]["causes"]
            .as_array()
            .context("a conflict without causes")?;
        let mut found: Vec<(String, String)> = causes
            .iter()
            .map(|cause| {
                let message = cause["message"].as_str().unwrap_or_default();
                let owner = message.split('"').nth(1).unwrap_or_default().to_owned();
                (
                    owner,
                    cause["field"].as_str().unwrap_or_default().to_owned(),
                )
            })
            .collect();
        found.sort();
        found.dedup();
        ensure!(
            found == refusal.conflicts,
            "the conflicts should be {:?}, and are {found:?}",
            refusal.conflicts
        );
    }
    Ok(())
}

fn is_scale_of(scale: &Value, object: &Value) -> Result<()> {
    let same = scale["kind"] == "Scale"
        && scale["spec"]["replicas"] == object["spec"]["replicas"]
        && scale["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"]
        && scale["metadata"]["uid"] == object["metadata"]["uid"]
        && scale["status"]["selector"] == "app=x"
        && scale["status"]["replicas"].as_i64().unwrap_or(0)
            == object["status"]["replicas"].as_i64().unwrap_or(0);
    ensure!(same, "{scale} is not the scale of {object}");
    Ok(())
}
