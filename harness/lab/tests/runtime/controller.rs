//! A small controller, as the documentation of `kube` has people write them: a ConfigMap for each
//! Greeting, with a finalizer, a status, events, and a look at settings that it does not own.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as Reported;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use strata_lab::api::ApiServer;

use crate::line::Line;
use crate::{from, soon};

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "runtime.strata.dev",
    version = "v1",
    kind = "Greeting",
    namespaced,
    status = "Told"
)]
struct GreetingSpec {
    whom: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Told {
    text: String,
    observed_generation: i64,
}

const FINALIZER: &str = "runtime.strata.dev/farewell";

struct Context {
    client: Client,
    recorder: Recorder,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("finalizer: {0}")]
    Finalizer(String),
}

async fn reconcile(greeting: Arc<Greeting>, context: Arc<Context>) -> Result<Action, Trouble> {
    let namespace = greeting.namespace().unwrap_or_default();
    let api = Api::<Greeting>::namespaced(context.client.clone(), &namespace);
    let done = finalizer(&api, FINALIZER, greeting, |event| async {
        match event {
            Finalizer::Apply(greeting) => greet(&context, &api, &greeting).await,
            Finalizer::Cleanup(greeting) => part(&context, &greeting).await,
        }
    });
    done.await
        .map_err(|error| Trouble::Finalizer(format!("{error:?}")))
}

async fn greet(
    context: &Context,
    api: &Api<Greeting>,
    greeting: &Greeting,
) -> Result<Action, Trouble> {
    let namespace = greeting.namespace().unwrap_or_default();
    let maps = Api::<ConfigMap>::namespaced(context.client.clone(), &namespace);
    let settings = maps
        .get_opt("settings")
        .await?
        .and_then(|map| map.data)
        .unwrap_or_default();
    let word = settings.get("word").map_or("Hello", String::as_str);
    let text = format!("{word}, {}", greeting.spec.whom);
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(greeting.name_any()),
            owner_references: Some(greeting.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some([("text".to_owned(), text.clone())].into()),
        ..ConfigMap::default()
    };
    let apply = PatchParams::apply("greeter").force();
    maps.patch(&greeting.name_any(), &apply, &Patch::Apply(map))
        .await?;
    let told = Told {
        text: text.clone(),
        observed_generation: greeting.metadata.generation.unwrap_or(0),
    };
    if greeting.status.as_ref() != Some(&told) {
        let status = json!({"status": told});
        api.patch_status(
            &greeting.name_any(),
            &PatchParams::default(),
            &Patch::Merge(status),
        )
        .await?;
        report(context, greeting, "Greeted", text).await?;
    }
    Ok(Action::await_change())
}

async fn part(context: &Context, greeting: &Greeting) -> Result<Action, Trouble> {
    let maps = Api::<ConfigMap>::namespaced(
        context.client.clone(),
        &greeting.namespace().unwrap_or_default(),
    );
    match maps
        .delete(&greeting.name_any(), &DeleteParams::default())
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => drop(other?),
    }
    report(context, greeting, "Parted", "Farewell".to_owned()).await?;
    Ok(Action::await_change())
}

async fn report(
    context: &Context,
    greeting: &Greeting,
    reason: &str,
    note: String,
) -> Result<(), Trouble> {
    let event = Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Greet".to_owned(),
        secondary: None,
    };
    Ok(context
        .recorder
        .publish(&event, &greeting.object_ref(&()))
        .await?)
}

/// Runs the controller over a line, until it is dropped.
fn start(client: &Client) -> tokio::task::JoinHandle<()> {
    let recorder = Recorder::new(
        client.clone(),
        Reporter {
            controller: "greeter".into(),
            instance: Some("greeter-0".into()),
        },
    );
    let context = Arc::new(Context {
        client: client.clone(),
        recorder,
    });
    let greetings = Api::<Greeting>::default_namespaced(client.clone());
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let controller = Controller::new(greetings, watcher::Config::default());
    let all = controller.store();
    let settings = watcher::Config::default().fields("metadata.name=settings");
    let running = controller
        .owns(maps.clone(), watcher::Config::default())
        .watches(maps, settings, move |_| {
            all.state()
                .iter()
                .map(|one| ObjectRef::from_obj(&**one))
                .collect::<Vec<_>>()
        })
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            context,
        )
        .for_each(|outcome| {
            // Shown by the test runner if the test fails.
            if let Err(error) = outcome {
                println!("{error:?}");
            }
            std::future::ready(())
        });
    tokio::spawn(running)
}

struct Stage {
    server: ApiServer,
    line: Arc<Line>,
    greetings: Api<Greeting>,
    maps: Api<ConfigMap>,
    events: Api<Reported>,
    controller: tokio::task::JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

async fn stage(cuts: impl IntoIterator<Item = u8>) -> Stage {
    let server = ApiServer::alone().unwrap();
    let client = server.client("test");
    let definitions = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &Greeting::crd())
        .await
        .unwrap();
    let served = await_condition(
        definitions,
        Greeting::crd_name(),
        conditions::is_crd_established(),
    );
    soon("the definition", served).await.unwrap();
    let line = Line::new(cuts);
    Stage {
        controller: start(&line.client(server.client("greeter"))),
        greetings: Api::default_namespaced(client.clone()),
        maps: Api::default_namespaced(client.clone()),
        events: Api::default_namespaced(client),
        server,
        line,
    }
}

impl Stage {
    async fn create(&self, name: &str, whom: &str) {
        let greeting = Greeting::new(
            name,
            GreetingSpec {
                whom: whom.to_owned(),
            },
        );
        self.greetings
            .create(&PostParams::default(), &greeting)
            .await
            .unwrap();
    }

    /// Waits until a greeting is told, in its status and in its ConfigMap.
    async fn told(&self, name: &str, text: &str) {
        let wanted = text.to_owned();
        let status = await_condition(
            self.greetings.clone(),
            name,
            move |found: Option<&Greeting>| {
                let status = found.and_then(|greeting| greeting.status.as_ref());
                status.is_some_and(|told| told.text == wanted)
            },
        );
        soon(&format!("the status says {text:?}"), status)
            .await
            .unwrap();
        let wanted = text.to_owned();
        let map = await_condition(self.maps.clone(), name, move |found: Option<&ConfigMap>| {
            let data = found.and_then(|map| map.data.as_ref());
            data.is_some_and(|data| data["text"] == wanted)
        });
        soon(&format!("the ConfigMap says {text:?}"), map)
            .await
            .unwrap();
    }

    async fn patch(&self, name: &str, whom: &str) {
        let patch = Patch::Merge(json!({"spec": {"whom": whom}}));
        self.greetings
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_owns_watches_finalizes_and_reports() {
    let stage = stage([]).await;
    stage.create("g", "world").await;
    stage.told("g", "Hello, world").await;
    let map = stage.maps.get("g").await.unwrap();
    let greeting = stage.greetings.get("g").await.unwrap();
    assert_eq!(map.owner_references()[0].uid, greeting.uid().unwrap());
    assert_eq!(greeting.finalizers(), [FINALIZER]);
    assert_eq!(
        greeting.status.unwrap().observed_generation,
        1,
        "a finalizer and a status are no new generation"
    );

    // It owns the map: one that is deleted comes again.
    stage
        .maps
        .delete("g", &DeleteParams::default())
        .await
        .unwrap();
    let again = await_condition(stage.maps.clone(), "g", move |found: Option<&ConfigMap>| {
        found.is_some_and(|found| found.uid() != map.uid())
    });
    soon("the map again", again).await.unwrap();

    // It watches the settings, which it does not own.
    let settings = from(json!({"metadata": {"name": "settings"}, "data": {"word": "Good day"}}));
    stage
        .maps
        .create(&PostParams::default(), &settings)
        .await
        .unwrap();
    stage.told("g", "Good day, world").await;

    let uid = greeting.metadata.uid.unwrap();
    stage
        .greetings
        .delete("g", &DeleteParams::default())
        .await
        .unwrap();
    soon(
        "the greeting goes",
        await_condition(stage.greetings.clone(), "g", conditions::is_deleted(&uid)),
    )
    .await
    .unwrap();
    assert!(
        stage.maps.get_opt("g").await.unwrap().is_none(),
        "its finalizer cleared up"
    );
    let events = stage.events.list(&ListParams::default()).await.unwrap();
    let mut reasons: Vec<_> = events
        .items
        .iter()
        .filter_map(|event| event.reason.as_deref())
        .collect();
    reasons.sort_unstable();
    assert!(
        reasons.contains(&"Greeted") && reasons.contains(&"Parted"),
        "{reasons:?}"
    );
    let core =
        Api::<k8s_openapi::api::core::v1::Event>::default_namespaced(stage.server.client("test"));
    let about = ListParams::default().fields("involvedObject.kind=Greeting,involvedObject.name=g");
    assert_eq!(
        core.list(&about).await.unwrap().items.len(),
        events.items.len(),
        "kubectl describe finds them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_outlives_broken_connections_a_forgotten_history_and_an_outage() {
    // Clean ends: after each error, watchers wait ever longer, and there will be some.
    let stage = stage([0, 3, 6, 0, 3, 0]).await;
    for number in 0..8 {
        stage.create(&format!("g{number}"), "world").await;
        if number == 3 {
            stage.server.compact();
        }
    }
    for number in 0..8 {
        stage.told(&format!("g{number}"), "Hello, world").await;
    }
    // While it is away, things change, go, and are forgotten.
    stage.line.set_down(true);
    stage.patch("g0", "moon").await;
    stage
        .maps
        .delete("g1", &DeleteParams::default())
        .await
        .unwrap();
    stage
        .greetings
        .delete("g2", &DeleteParams::default())
        .await
        .unwrap();
    stage.server.compact();
    stage.line.set_down(false);
    stage.told("g0", "Hello, moon").await;
    stage.told("g1", "Hello, world").await;
    let gone = await_condition(stage.greetings.clone(), "g2", |found: Option<&Greeting>| {
        found.is_none()
    });
    soon("g2 goes", gone).await.unwrap();
}
