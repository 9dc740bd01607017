//! Requests to the API server, by verb and number of clients.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use http::Request;
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::bare::{Answers, Server};
use crate::cluster::{self, Cluster, NAMESPACE};
use crate::report::{Line, Measured, Plot, Samples, Table, short};

const CLIENTS: [usize; 3] = [1, 4, 16];
/// How long one verb is asked for at a time, and how many times.
const TURN: Duration = Duration::from_millis(400);
const TURNS: usize = 2;
const LISTED: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verb {
    Create,
    Get,
    List,
    Update,
    Patch,
}

const VERBS: [(Verb, &str); 5] = [
    (Verb::Create, "create"),
    (Verb::Get, "get"),
    (Verb::List, "list of 100"),
    (Verb::Update, "update"),
    (Verb::Patch, "patch"),
];

/// A ConfigMap of about one kilobyte.
pub(crate) fn config_map(name: &str, said: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"said": said, "text": "strata ".repeat(100)},
    })
}

pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{name}")
}

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let cluster = Cluster::start(cluster::config(3)).await?;
    for number in 0..LISTED {
        let name = format!("one-{number}");
        let request = Request::post(path("")).body(serde_json::to_vec(&config_map(&name, ""))?)?;
        cluster.client.request_text(request).await?;
    }
    let get = async |path: String| {
        let request = Request::get(path).body(Vec::new())?;
        anyhow::Ok(cluster.client.request_text(request).await?)
    };
    let bare = Server::start(&Answers {
        object: get(path("/one-0")).await?,
        list: get(path("?limit=100")).await?,
    })
    .await?;
    let counter = AtomicU64::new(0);
    let mut table = Table::new(&[
        "verb",
        "clients",
        "requests/s",
        "÷ bare server",
        "p50 ms",
        "p99 ms",
    ]);
    let mut lines = Vec::new();
    for (verb, name) in VERBS {
        let mut line = Line::new(name);
        for clients in CLIENTS {
            let (mut lab, mut least) = (Turn::default(), Turn::default());
            for _ in 0..TURNS {
                lab.add(turn(&cluster.config, verb, clients, &counter).await?);
                least.add(turn(&bare.config, verb, clients, &counter).await?);
            }
            line.points
                .push((f64::from(u32::try_from(clients)?), lab.rate()));
            table.row([
                name.to_owned(),
                clients.to_string(),
                short(lab.rate()),
                short(lab.rate() / least.rate()),
                short(lab.times.median()),
                short(lab.times.percentile(99)),
            ]);
        }
        lines.push(line);
    }
    cluster.stop().await?;
    Ok(Measured {
        plots: vec![Plot {
            name: "requests".to_owned(),
            title: "API requests".to_owned(),
            x: "clients".to_owned(),
            y: "requests per second".to_owned(),
            lines,
        }],
        table,
        ..Measured::default()
    })
}

/// The requests of one or more turns.
#[derive(Default)]
struct Turn {
    times: Samples,
    count: u32,
    took: Duration,
}

impl Turn {
    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.count += other.count;
        self.took += other.took;
    }

    fn rate(&self) -> f64 {
        f64::from(self.count) / self.took.as_secs_f64()
    }
}

/// All clients at once, each as fast as it is answered, for a turn.
async fn turn(
    config: &Config,
    verb: Verb,
    clients: usize,
    counter: &AtomicU64,
) -> anyhow::Result<Turn> {
    let clients: Vec<Client> = (0..clients)
        .map(|_| Client::try_from(config.clone()))
        .collect::<Result<_, _>>()?;
    for client in &clients {
        // The connection is not part of it.
        client.request_text(request(Verb::Get, 0, 0)?).await?;
    }
    let begun = Instant::now();
    let each = clients
        .iter()
        .enumerate()
        .map(|(number, client)| async move {
            let mut times = Vec::new();
            while begun.elapsed() < TURN {
                let unique = counter.fetch_add(1, Ordering::Relaxed);
                let request = request(verb, number, unique)?;
                let asked = Instant::now();
                client.request_text(request).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    let times = try_join_all(each).await?.concat();
    let mut turn = Turn {
        count: u32::try_from(times.len())?,
        took: begun.elapsed(),
        ..Turn::default()
    };
    times.into_iter().for_each(|time| turn.times.add(time));
    Ok(turn)
}

fn request(verb: Verb, client: usize, unique: u64) -> anyhow::Result<Request<Vec<u8>>> {
    let name = format!("one-{client}");
    let own = path(&format!("/{name}"));
    let said = unique.to_string();
    let request = match verb {
        Verb::Create => {
            let body = config_map(&format!("new-{unique}"), &said);
            // Not among those that are listed.
            let path = path("").replace(NAMESPACE, "default");
            Request::post(path).body(serde_json::to_vec(&body)?)
        }
        Verb::Get => Request::get(own).body(Vec::new()),
        Verb::List => Request::get(path("")).body(Vec::new()),
        Verb::Update => Request::put(own).body(serde_json::to_vec(&config_map(&name, &said))?),
        Verb::Patch => Request::patch(own)
            .header("Content-Type", "application/merge-patch+json")
            .body(serde_json::to_vec(&json!({"data": {"said": said}}))?),
    };
    Ok(request?)
}
