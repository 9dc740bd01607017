//! Names to addresses, by resolv.conf and the hosts file, without a C library.
//!
//! Start from [`Resolver::from_system`]. Follows resolv.conf(5) as glibc does it: `search` and `ndots`
//! decide which full names a name may mean; a name that exists without the record, or whose
//! server fails, does not end the walk, silence does.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::Hosts;
use hickory_resolver::system_conf::parse_resolv_conf;
use strata_probe::{DnsExchange, Failure, FailureKind, Stage};

use super::lookup::{Asked, Servers};

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// How names are resolved here.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<Name>,
    ndots: usize,
    hosts: Hosts,
    /// Why there are no servers.
    trouble: Option<String>,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`, or what `PROBE_RESOLV_CONF`, `PROBE_HOSTS` and
    /// `PROBE_NAME_SERVER` say instead.
    pub(crate) fn from_system() -> Self {
        let file = |variable: &str, path: &str| {
            env::var_os(variable).map_or_else(|| path.into(), std::path::PathBuf::from)
        };
        let resolv_conf = file("PROBE_RESOLV_CONF", "/etc/resolv.conf");
        let mut resolver = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            hosts: Hosts::default(),
            trouble: None,
        };
        match fs::read(&resolv_conf).map_err(|error| error.to_string()) {
            Ok(text) => resolver.read(&text),
            Err(error) => resolver.trouble = Some(error),
        }
        resolver.trouble = resolver
            .trouble
            .map(|trouble| format!("{}: {trouble}", resolv_conf.display()));
        if let Ok(hosts) = fs::File::open(file("PROBE_HOSTS", "/etc/hosts")) {
            // A line that cannot be read is as good as a name that is not there.
            let _ = resolver.hosts.read_hosts_conf(hosts);
        }
        if let Ok(server) = env::var("PROBE_NAME_SERVER")
            && let Some(server) = name_server(&server)
        {
            resolver.servers = vec![server];
        }
        resolver
    }

    fn read(&mut self, resolv_conf: &[u8]) {
        match parse_resolv_conf(resolv_conf) {
            Ok((config, options)) => {
                self.servers = config
                    .name_servers()
                    .iter()
                    .map(|server| SocketAddr::new(server.ip, DNS_PORT))
                    .collect();
                self.search = config.search().to_vec();
                self.ndots = options.ndots;
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// Why nobody can be asked, if so.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        self.servers.is_empty().then(|| {
            let why = self.trouble.as_deref().unwrap_or("it names none");
            Failure::new(
                FailureKind::Other,
                Stage::Local,
                format!("no name servers: {why}"),
            )
        })
    }

    /// The full names that a name may mean, in the order to try them.
    pub(crate) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        let as_it_stands = full(name)?;
        if name.ends_with('.') {
            return Ok(vec![as_it_stands]);
        }
        let mut relative = as_it_stands.clone();
        relative.set_fqdn(false);
        // Together longer than a name may be: such a name does not exist.
        let searched = self.search.iter().filter_map(|domain| {
            let mut name = relative.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let first = name.matches('.').count() >= self.ndots;
        let mut names: Vec<Name> = Vec::new();
        if first {
            names.push(as_it_stands.clone());
        }
        for name in searched.chain([as_it_stands]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The addresses of a host: the name servers' IPv4, then IPv6, each in the order of the answer.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let local = |text| Failure::new(FailureKind::NoSuchHost, Stage::Local, text);
        let name = full(host).map_err(local)?;
        let known = self.known(&name);
        if !known.is_empty() {
            return Ok(known);
        }
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let servers = Servers {
            addresses: self.servers.clone(),
            tcp: false,
            keep_truncated: false,
            timeout: Duration::from_secs(2),
            attempts: 2,
        };
        let mut walk = Walk::default();
        for name in self.candidates(host).map_err(local)? {
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            let both = tokio::join!(
                servers.ask(&name, RecordType::A, &mut v4),
                servers.ask(&name, RecordType::AAAA, &mut v6),
            );
            let mut addresses = Vec::new();
            for asked in [both.0, both.1] {
                addresses.extend(walk.step(asked));
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            walk.exchanges.extend(v4);
            walk.exchanges.extend(v6);
            if walk.silent {
                break;
            }
        }
        Err(walk.failure(host))
    }

    /// What needs no name server.
    fn known(&self, name: &Name) -> Vec<IpAddr> {
        let lower = name.to_lowercase();
        let known: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                self.hosts
                    .lookup_static_host(&Query::query(lower.clone(), kind))
            })
            .flat_map(|lookup| {
                let addresses = lookup.answers().iter().map(|record| record.data.ip_addr());
                addresses.flatten().collect::<Vec<_>>()
            })
            .collect();
        if known.is_empty() && name.is_localhost() {
            // RFC 6761 §6.3: nobody needs to be asked.
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        known
    }
}

/// What was met on the way along the search path.
#[derive(Debug, Default)]
struct Walk {
    exchanges: Vec<DnsExchange>,
    exists: bool,
    failed: Option<Failure>,
    silent: bool,
}

impl Walk {
    fn step(&mut self, asked: Asked) -> Vec<IpAddr> {
        match asked {
            Asked::Settled(message) => {
                self.exists |= message.metadata.response_code == ResponseCode::NoError;
                addresses(&message)
            }
            Asked::Unsettled(_, failure) => {
                self.silent |= failure.kind != FailureKind::NameServerFailed;
                self.failed = Some(failure);
                Vec::new()
            }
        }
    }

    fn failure(self, host: &str) -> Failure {
        if let Some(failure) = self.failed
            && (self.silent || !self.exists)
        {
            return failure;
        }
        let mut asked: Vec<String> = Vec::new();
        for exchange in &self.exchanges {
            if let Some(rcode) = &exchange.rcode
                && let text = format!("{} {rcode}", exchange.question)
                && !asked.contains(&text)
            {
                asked.push(text);
            }
        }
        Failure::new(
            FailureKind::NoSuchHost,
            Stage::Resolve,
            format!("{host} has no address ({})", asked.join(", ")),
        )
    }
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let records = message.answers.iter();
    records.filter_map(|record| record.data.ip_addr()).collect()
}

/// A name as it stands, with the last dot.
pub(crate) fn full(name: &str) -> Result<Name, String> {
    let mut full = Name::from_str_relaxed(name)
        .map_err(|error| format!("`{name}` is no domain name: {error}"))?;
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    full.set_fqdn(true);
    Ok(full)
}

/// `ADDRESS` or `ADDRESS:PORT`.
pub(crate) fn name_server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let address: IpAddr = text
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()?;
        Some(SocketAddr::new(address, DNS_PORT))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(resolv_conf: &str) -> Resolver {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            hosts: Hosts::default(),
            trouble: None,
        };
        resolver.read(resolv_conf.as_bytes());
        resolver
    }

    #[test]
    fn ndots_decides_whether_the_name_as_it_stands_comes_first() {
        let pod = "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let resolver = resolver(pod);
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap()]);
        let names = |name: &str| -> Vec<String> {
            let names = resolver.candidates(name).unwrap();
            names.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names("web"),
            [
                "web.ns.svc.cluster.local.",
                "web.svc.cluster.local.",
                "web."
            ]
        );
        assert_eq!(
            names("a.b.c.d.e.f"),
            [
                "a.b.c.d.e.f.",
                "a.b.c.d.e.f.ns.svc.cluster.local.",
                "a.b.c.d.e.f.svc.cluster.local."
            ]
        );
        assert_eq!(names("web."), ["web."]);
        assert_eq!(names("_dns._udp.x.")[0], "_dns._udp.x.");
    }

    #[test]
    fn a_name_server_may_have_a_port() {
        for (text, server) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("fd00::1", "[fd00::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            assert_eq!(name_server(text), Some(server.parse().unwrap()));
        }
        assert_eq!(name_server("dns"), None);
    }

    #[test]
    fn hosts_and_localhost_need_no_server() {
        let mut resolver = resolver("");
        resolver
            .hosts
            .read_hosts_conf("10.0.0.7 Web other # x\nfd00::7 web\n".as_bytes())
            .unwrap();
        let known = |name: &str| resolver.known(&full(name).unwrap());
        assert_eq!(
            known("wEb"),
            [
                "10.0.0.7".parse::<IpAddr>().unwrap(),
                "fd00::7".parse().unwrap()
            ]
        );
        assert_eq!(known("localhost").len(), 2);
        assert!(known("else").is_empty());
        assert!(resolver.trouble().is_some());
    }
}
