//! `kube`'s watcher and reflector over connections that break at any event, and a history that is
//! forgotten at any moment: what they hold in the end is what is there, and what they were told is
//! what happened.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, Client, ResourceExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use strata_lab::api::ApiServer;

use crate::config;
use crate::line::Line;
use crate::wire::PATIENCE;

#[derive(Debug, Clone)]
enum Write {
    Create(u8),
    Change(u8, u8),
    /// Into the selection, or out of it.
    Move(u8, bool),
    Delete(u8),
    Compact,
}

#[derive(Debug, Clone)]
struct Case {
    before: Vec<Write>,
    during: Vec<Write>,
    cuts: Vec<u8>,
    streaming: bool,
    page: Option<u32>,
    selected: bool,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    vec(
        prop_oneof![
            4 => (0u8..6).prop_map(Write::Create),
            4 => (0u8..6, 0u8..9).prop_map(|(name, value)| Write::Change(name, value)),
            2 => (0u8..6, any::<bool>()).prop_map(|(name, into)| Write::Move(name, into)),
            3 => (0u8..6).prop_map(Write::Delete),
            1 => Just(Write::Compact),
        ],
        0..40,
    )
}

fn cases() -> impl Strategy<Value = Case> {
    let page = prop_oneof![Just(None), (1u32..4).prop_map(Some)];
    (
        writes(),
        writes(),
        vec(0u8..6, 0..20),
        any::<bool>(),
        page,
        any::<bool>(),
    )
        .prop_map(|(before, during, cuts, streaming, page, selected)| Case {
            before,
            during,
            cuts,
            streaming,
            page,
            selected,
        })
}

async fn write(server: &ApiServer, api: &Api<ConfigMap>, write: &Write) {
    let merge = async |name: u8, patch: serde_json::Value| {
        let patched = api
            .patch(
                &format!("c{name}"),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        patched.map(drop)
    };
    // What is not there, or is there already, is none of this test's business.
    let _ = match *write {
        Write::Create(name) => {
            let object = json!({"metadata": {"name": format!("c{name}"), "labels": {"in": "yes"}}});
            let object = serde_json::from_value(object).unwrap();
            api.create(&PostParams::default(), &object).await.map(drop)
        }
        Write::Change(name, value) => merge(name, json!({"data": {"v": value.to_string()}})).await,
        Write::Move(name, into) => {
            merge(
                name,
                json!({"metadata": {"labels": {"in": into.then_some("yes")}}}),
            )
            .await
        }
        Write::Delete(name) => api
            .delete(&format!("c{name}"), &DeleteParams::default())
            .await
            .map(drop),
        Write::Compact => {
            server.compact();
            Ok(())
        }
    };
}

/// What a watcher told of one object: present with a version, or gone.
type Known = BTreeMap<String, String>;

fn versions(objects: impl IntoIterator<Item = ConfigMap>) -> Known {
    let pair = |object: ConfigMap| {
        (
            object.name_any(),
            object.resource_version().unwrap_or_default(),
        )
    };
    objects.into_iter().map(pair).collect()
}

async fn follows(case: &Case) -> Result<()> {
    let server = ApiServer::alone().unwrap();
    let client = server.client("model");
    let namespace = json!({"metadata": {"name": "reflector"}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(namespace)?)
        .await?;
    let direct: Api<ConfigMap> = Api::namespaced(client.clone(), "reflector");
    for one in &case.before {
        write(&server, &direct, one).await;
    }
    let told = tokio::spawn(watch(
        Line::new(case.cuts.clone()).client(client),
        case.clone(),
    ));
    for one in &case.during {
        write(&server, &direct, one).await;
        tokio::task::yield_now().await;
    }
    let last = json!({"metadata": {"name": "z-last", "labels": {"in": "yes"}}});
    direct
        .create(&PostParams::default(), &serde_json::from_value(last)?)
        .await?;
    let (told, held) = tokio::time::timeout(PATIENCE, told)
        .await
        .context("the last object is never told of")???;
    let params = if case.selected {
        ListParams::default().labels("in=yes")
    } else {
        ListParams::default()
    };
    let there = versions(direct.list(&params).await?.items);
    ensure!(told == there, "told {told:?}, there is {there:?}");
    ensure!(
        held == there,
        "the reflector holds {held:?}, there is {there:?}"
    );
    Ok(())
}

/// Watches until the last object comes; gives what the events make up, and what the reflector holds.
async fn watch(client: Client, case: Case) -> Result<(Known, Known)> {
    let mut config = watcher::Config {
        page_size: case.page,
        ..watcher::Config::default()
    };
    if case.streaming {
        config.initial_list_strategy = InitialListStrategy::StreamingList;
    }
    if case.selected {
        config = config.labels("in=yes");
    }
    let (store, writer) = reflector::store::<ConfigMap>();
    let events = watcher::watcher(Api::<ConfigMap>::namespaced(client, "reflector"), config);
    let mut events = std::pin::pin!(events.reflect(writer));
    let (mut known, mut listed) = (Known::new(), Known::new());
    let mut newest = 0u64;
    loop {
        let event = match events.next().await.context("the watcher ended")? {
            Ok(event) => event,
            Err(_) => continue,
        };
        let mut done = false;
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.extend(versions([object])),
            Event::InitDone => {
                done = listed.contains_key("z-last");
                newest = listed
                    .values()
                    .filter_map(|one| one.parse().ok())
                    .max()
                    .unwrap_or(0)
                    .max(newest);
                known = std::mem::take(&mut listed);
            }
            Event::Apply(object) => {
                advance(&mut newest, &object)?;
                done = object.name_any() == "z-last";
                known.extend(versions([object]));
            }
            Event::Delete(object) => {
                // After a list, a deletion of before it may be told again; never one of what is there now.
                let gone = known.remove(&object.name_any());
                let seen = object
                    .resource_version()
                    .unwrap_or_default()
                    .parse::<u64>()?;
                let was = gone.and_then(|one| one.parse::<u64>().ok()).unwrap_or(0);
                ensure!(
                    seen > was,
                    "a deletion at {seen} is told of what was there at {was}"
                );
                newest = newest.max(seen);
            }
        }
        if done {
            let held = store.state().into_iter().map(|object| (*object).clone());
            return Ok((known, versions(held)));
        }
    }
}

fn advance(newest: &mut u64, object: &ConfigMap) -> Result<()> {
    let seen = object.resource_version().context("no version")?.parse()?;
    ensure!(seen > *newest, "told of version {seen} after {newest}");
    *newest = seen;
    Ok(())
}

#[test]
fn a_reflector_misses_nothing_whenever_its_connection_breaks() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = TestRunner::new(config(64)).run(&cases(), |case| {
        let followed = runtime.block_on(follows(&case));
        followed.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
