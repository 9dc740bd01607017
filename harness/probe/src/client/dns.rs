//! `dns`: one lookup, and every exchange on the way.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use strata_probe::{DnsRecord, DnsReply, DnsSpec, Failure, FailureKind};

use super::lookup::{Asked, Servers, rcode};
use super::resolve::{Resolver, full, name_server};
use super::{at_least_one, micros_since, write};
use crate::Trouble;

/// Looks the name up and writes what came of it.
pub(crate) async fn run(spec: DnsSpec) -> Result<(), Trouble> {
    at_least_one("timeoutMs", spec.timeout_ms)?;
    at_least_one("attempts", spec.attempts.into())?;
    let record_type = RecordType::from_str(&spec.record_type.to_uppercase()).map_err(|_| {
        Trouble::CommandLine(format!("`{}` is no type of record", spec.record_type))
    })?;
    let start = Instant::now();
    let mut resolver = Resolver::from_system();
    if let Some(server) = &spec.server {
        resolver.servers = vec![name_server(server).ok_or_else(|| {
            Trouble::CommandLine(format!("`{server}` is no ADDRESS or ADDRESS:PORT"))
        })?];
    }
    let names = names(&spec, record_type, &resolver).map_err(Trouble::CommandLine)?;
    let servers = Servers {
        addresses: resolver.servers.clone(),
        tcp: spec.tcp,
        keep_truncated: spec.keep_truncated,
        timeout: Duration::from_millis(spec.timeout_ms),
        attempts: spec.attempts,
    };
    let mut reply = DnsReply {
        name: spec.name,
        record_type: record_type.to_string(),
        question: names.first().map(Name::to_string).unwrap_or_default(),
        rcode: None,
        error: resolver.trouble(),
        answers: Vec::new(),
        cname_chain: Vec::new(),
        addresses: Vec::new(),
        truncated: false,
        latency_us: 0,
        exchanges: Vec::new(),
    };
    if reply.error.is_none() {
        walk(&servers, names, record_type, &mut reply).await;
    }
    reply.latency_us = micros_since(start);
    write(&reply)
}

fn names(
    spec: &DnsSpec,
    record_type: RecordType,
    resolver: &Resolver,
) -> Result<Vec<Name>, String> {
    if record_type == RecordType::PTR
        && let Ok(address) = spec.name.parse::<IpAddr>()
    {
        return Ok(vec![address.into()]);
    }
    match spec.no_search {
        true => full(&spec.name).map(|name| vec![name]),
        false => resolver.candidates(&spec.name),
    }
}

/// Walks the search path until a name has records. A name that exists without them is a better answer
/// than the NXDOMAINs around it, and silence ends the walk.
async fn walk(servers: &Servers, names: Vec<Name>, record_type: RecordType, reply: &mut DnsReply) {
    let mut best: Option<(Name, Asked)> = None;
    for name in names {
        let asked = servers.ask(&name, record_type, &mut reply.exchanges).await;
        let end = worth(&asked) == Worth::Records || is_silence(&asked);
        let better = best
            .as_ref()
            .is_none_or(|(_, best)| end || worth(&asked) >= worth(best));
        if better {
            best = Some((name, asked));
        }
        if end {
            break;
        }
    }
    let Some((name, asked)) = best else { return };
    reply.question = name.to_string();
    match asked {
        Asked::Settled(message) => take(reply, &name, &message),
        Asked::Unsettled(message, failure) => {
            if let Some(message) = message {
                take(reply, &name, &message);
            }
            reply.error = Some(failure);
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    NoSuchName,
    Failed,
    Exists,
    Records,
}

fn worth(asked: &Asked) -> Worth {
    match asked {
        Asked::Settled(message) if message.metadata.response_code == ResponseCode::NXDomain => {
            Worth::NoSuchName
        }
        Asked::Settled(message) if message.answers.is_empty() && !message.metadata.truncation => {
            Worth::Exists
        }
        Asked::Settled(_) => Worth::Records,
        Asked::Unsettled(..) => Worth::Failed,
    }
}

fn is_silence(asked: &Asked) -> bool {
    let silent = |failure: &Failure| failure.kind != FailureKind::NameServerFailed;
    matches!(asked, Asked::Unsettled(_, failure) if silent(failure))
}

fn take(reply: &mut DnsReply, question: &Name, message: &Message) {
    reply.rcode = Some(rcode(message.metadata.response_code));
    reply.truncated = message.metadata.truncation;
    reply.answers = message
        .answers
        .iter()
        .map(|record| DnsRecord {
            name: record.name.to_string(),
            record_type: record.record_type().to_string(),
            ttl: record.ttl,
            data: record.data.to_string(),
        })
        .collect();
    reply.addresses = message
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect();
    reply.cname_chain = chain(question, message);
}

fn chain(question: &Name, message: &Message) -> Vec<String> {
    let mut names = vec![question.clone()];
    // Not longer than the answer: a loop of CNAMEs must not be one of ours.
    for _ in &message.answers {
        let next = message
            .answers
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(canonical) if names.last() == Some(&record.name) => {
                    Some(canonical.0.clone())
                }
                _ => None,
            });
        match next {
            Some(next) => names.push(next),
            None => break,
        }
    }
    match names.len() {
        1 => Vec::new(),
        _ => names.iter().map(Name::to_string).collect(),
    }
}
