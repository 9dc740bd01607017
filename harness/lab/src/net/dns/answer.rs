//! A question's answer. Pure.
//!
//! Start from [`answer`].
//!
//! | the name | the answer |
//! | --- | --- |
//! | has records of the type | those, and the addresses that they lead to |
//! | is another's alias | the alias, and the answer for the other name if it is ours |
//! | is there, without the type | NOERROR, the zone's SOA (RFC 2308 §2.2) |
//! | is ours, and not there | NXDOMAIN, the zone's SOA (RFC 2308 §2.1) |
//! | is not ours | none: it is another's to answer |

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::{Entry, TTL, Zone, address_record, is_below};
use crate::topology::CLUSTER_DOMAIN;

/// How many aliases are followed.
const LONGEST_CHAIN: usize = 8;

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    /// Whether it is from the zone itself (the bit AA).
    pub(super) authoritative: bool,
    /// Whether there is more than was sent (the bit TC).
    pub(super) truncated: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Answer {
    /// No answer, and why.
    pub(super) fn refused(code: ResponseCode) -> Self {
        Self::new(code, false)
    }

    /// A zone's own, with nothing in it yet.
    pub(super) fn of_zone(code: ResponseCode) -> Self {
        Self::new(code, true)
    }

    fn new(code: ResponseCode, authoritative: bool) -> Self {
        Self {
            code,
            authoritative,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

/// A name as the zone knows it: in small letters, without the final dot.
pub(super) fn key(name: &Name) -> String {
    name.to_lowercase()
        .to_ascii()
        .trim_end_matches('.')
        .to_owned()
}

/// Answers a question from a zone, if it is the zone's to answer. The answer's records carry the name
/// as it was asked for.
pub(super) fn answer(zone: &Zone, asked: &Name, kind: RecordType) -> Option<Answer> {
    let domain = zone.domain_of(&key(asked))?;
    let mut answer = Answer::of_zone(ResponseCode::NoError);
    let mut owner = asked.clone();
    // The domain whose SOA explains why there is nothing; none where a chain leaves the zone.
    let mut nothing_in = Some(domain);
    for _ in 0..=LONGEST_CHAIN {
        let Some(entries) = entries(zone, &key(&owner)) else {
            answer.code = ResponseCode::NXDomain;
            break;
        };
        let of = |kind: RecordType| {
            let found = entries
                .iter()
                .filter(move |one| one.data.record_type() == kind);
            found.cloned().collect::<Vec<Entry>>()
        };
        let wanted = if kind == RecordType::ANY {
            entries.clone()
        } else {
            of(kind)
        };
        if !wanted.is_empty() {
            nothing_in = None;
            for entry in wanted {
                add_addresses(zone, &entry.data, &mut answer.additionals);
                let record = Record::from_rdata(owner.clone(), entry.ttl, entry.data);
                answer.answers.push(record);
            }
            break;
        }
        let alias = of(RecordType::CNAME).into_iter().next();
        let Some(Entry {
            ttl,
            data: RData::CNAME(target),
        }) = alias
        else {
            break;
        };
        let record = Record::from_rdata(owner, ttl, RData::CNAME(target.clone()));
        answer.answers.push(record);
        owner = target.0;
        if !is_below(&key(&owner), CLUSTER_DOMAIN) {
            // What is at its end is another's to say.
            nothing_in = None;
            break;
        }
        nothing_in = Some(CLUSTER_DOMAIN);
    }
    if let Some(domain) = nothing_in {
        let mut apex = Name::from_ascii(domain).unwrap_or_else(|_| Name::root());
        apex.set_fqdn(true);
        answer
            .authorities
            .push(Record::from_rdata(apex, TTL, zone.authority(domain)));
    }
    Some(answer)
}

/// Where a chain of aliases leaves the zone, and its end was not what was asked for.
pub(super) fn leaves(answer: &Answer, kind: RecordType) -> Option<&Name> {
    let RData::CNAME(target) = &answer.answers.last()?.data else {
        return None;
    };
    let asked_for = matches!(kind, RecordType::CNAME | RecordType::ANY);
    let outside = !is_below(&key(&target.0), CLUSTER_DOMAIN);
    (outside && !asked_for).then_some(&target.0)
}

/// The records of a name, made up for pods' addresses (`pods insecure`): any address in any namespace
/// that exists.
fn entries(zone: &Zone, name: &str) -> Option<Vec<Entry>> {
    if let Some(found) = zone.get(name) {
        return Some(found.to_vec());
    }
    let rest = name.strip_suffix(CLUSTER_DOMAIN)?.strip_suffix(".pod.")?;
    let (pod, namespace) = rest.split_once('.')?;
    // An address with dashes, of either family.
    let address = [".", ":"].map(|point| pod.replace('-', point).parse::<IpAddr>());
    let data = address_record(address.into_iter().find_map(Result::ok)?);
    zone.has_namespace(namespace)
        .then(|| vec![Entry { ttl: TTL, data }])
}

/// Adds the addresses of a name that a record leads to, once.
fn add_addresses(zone: &Zone, data: &RData, additionals: &mut Vec<Record>) {
    let target = match data {
        RData::SRV(srv) => &srv.target,
        RData::NS(server) => &server.0,
        _ => return,
    };
    for entry in entries(zone, &key(target)).unwrap_or_default() {
        if matches!(entry.data.record_type(), RecordType::A | RecordType::AAAA) {
            let record = Record::from_rdata(target.clone(), entry.ttl, entry.data);
            if !additionals.contains(&record) {
                additionals.push(record);
            }
        }
    }
}
