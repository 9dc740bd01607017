//! DNS: questions a second, and from a new Service until every DNS server answers with it.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use strata_lab::topology::DNS_CLUSTER_IP;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::cluster::{self, Cluster, NAMESPACE};
use crate::propagation::Objects;
use crate::report::{Line, Measured, Plot, Samples, Table, short};

/// The roles of this program here.
pub(crate) const RATE: &str = "names-rate";
pub(crate) const WAIT: &str = "names-wait";

const SERVICES: [usize; 3] = [10, 100, 500];
const ROUNDS: usize = 50;
/// How many ask at once, and for how long.
const ASKERS: usize = 8;
const TURN: Duration = Duration::from_secs(2);

pub(crate) async fn measure() -> anyhow::Result<Measured> {
    let cluster = Cluster::start(cluster::config(3)).await?;
    let nodes = cluster.nodes().await?;
    let pid = nodes.values().next_back().context("no nodes")?;
    let servers = servers(&cluster).await?;
    let objects = Objects::new(&cluster.client);
    let mut table = Table::new(&[
        "Services",
        "a new name everywhere, p50 ms",
        "p99 ms",
        "questions/s",
        "÷ bare UDP echo",
    ]);
    let mut lines = [Line::new("p50"), Line::new("p99")];
    let mut made = 0;
    for services in SERVICES {
        let names: Vec<String> = (made..services)
            .map(|number| format!("other-{number}"))
            .collect();
        let each = names.iter().map(|name| objects.make(name));
        let all: Vec<_> = futures::stream::iter(each)
            .buffer_unordered(16)
            .collect()
            .await;
        all.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        made = services;
        let samples = appear(&cluster, pid, &servers, &objects, services).await?;
        let mut command = cluster.enter(pid);
        command.arg(std::env::current_exe()?).arg(RATE);
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await?;
        let (questions, echoes): (f64, f64) = serde_json::from_slice(&output.stdout)?;
        table.row([
            services.to_string(),
            short(samples.median()),
            short(samples.percentile(99)),
            short(questions),
            short(questions / echoes),
        ]);
        let x = f64::from(u32::try_from(services)?);
        lines[0].points.push((x, samples.median()));
        lines[1].points.push((x, samples.percentile(99)));
    }
    cluster.stop().await?;
    Ok(Measured {
        plots: vec![Plot {
            name: "names".to_owned(),
            title: "From a new Service until every DNS server knows it".to_owned(),
            x: "Services".to_owned(),
            y: "milliseconds".to_owned(),
            lines: lines.to_vec(),
        }],
        table,
        ..Measured::default()
    })
}

/// The addresses of the DNS servers' pods, once they are there.
async fn servers(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "kube-system");
    let ready = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True");
        status.pod_ip.filter(|_| ready)
    };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let found = pods
            .list(&ListParams::default().labels("k8s-app=kube-dns"))
            .await?;
        let addresses: Vec<String> = found.iter().filter_map(ready).collect();
        if addresses.len() == found.items.len() && !addresses.is_empty() {
            return Ok(addresses);
        }
        anyhow::ensure!(Instant::now() < until, "the DNS servers are not ready");
    }
}

/// How long it takes new names to be known to all servers, one after the other.
async fn appear(
    cluster: &Cluster,
    pid: &str,
    servers: &[String],
    objects: &Objects,
    services: usize,
) -> anyhow::Result<Samples> {
    let mut command = cluster.enter(pid);
    command
        .arg(std::env::current_exe()?)
        .arg(WAIT)
        .args(servers);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let mut said = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let mut samples = Samples::default();
    for round in 0..ROUNDS {
        let name = format!("new-{services}-{round}");
        stdin
            .write_all(format!("{name}.{NAMESPACE}.svc.cluster.local.\n").as_bytes())
            .await?;
        said.next_line().await?.context("who asks has ended")?;
        objects.prepare(&name).await?;
        let begun = Instant::now();
        objects.announce(&name).await?;
        said.next_line().await?.context("who asks has ended")?;
        samples.add(begun.elapsed());
        objects.remove(&name).await?;
    }
    Ok(samples)
}

fn question(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_str(name)?, RecordType::A));
    Ok(message.to_vec()?)
}

fn socket(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// The role that asks all servers for a name until they know it: says when it begins, and when they do.
pub(crate) fn wait() -> anyhow::Result<()> {
    let servers = std::env::args()
        .skip(2)
        .map(|server| socket((server.parse::<Ipv4Addr>()?, 53).into()));
    let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
    let mut buffer = [0; 512];
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let question = question(&line?)?;
        let mut begun = false;
        for server in &servers {
            loop {
                server.send(&question)?;
                let length = server.recv(&mut buffer)?;
                if !begun {
                    writeln!(out, "asking")?;
                    begun = true;
                }
                // ANCOUNT (RFC 1035 §4.1.1)
                if length > 8 && buffer[6..8] != [0, 0] {
                    break;
                }
                // Asking all the time would have the servers do little else.
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        writeln!(out, "known")?;
    }
    Ok(())
}

/// The role that asks as often as it is answered: the DNS Service, and who only sends everything back.
pub(crate) fn rate() -> anyhow::Result<()> {
    let name = format!("other-0.{NAMESPACE}.svc.cluster.local.");
    let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let echoing = echo.local_addr()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    });
    let question = question(&name)?;
    let questions = ask((DNS_CLUSTER_IP, 53).into(), &question)?;
    let echoes = ask(echoing, &question)?;
    println!("{}", serde_json::to_string(&(questions, echoes))?);
    Ok(())
}

fn ask(server: SocketAddr, question: &[u8]) -> anyhow::Result<f64> {
    let answered = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (answered, over, question) = (answered.clone(), over.clone(), question.to_vec());
            std::thread::spawn(move || {
                let socket = socket(server)?;
                let mut buffer = [0; 512];
                while !over.load(Ordering::Relaxed) {
                    socket.send(&question)?;
                    socket.recv(&mut buffer)?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let begun = Instant::now();
    std::thread::sleep(TURN);
    let rate = u32::try_from(answered.load(Ordering::Relaxed))?;
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        asker
            .join()
            .map_err(|_| anyhow::anyhow!("who asks has panicked"))??;
    }
    Ok(f64::from(rate) / took.as_secs_f64())
}
