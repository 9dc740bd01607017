//! The Corefile, as far as it is followed: which names are for whom to answer.
//!
//! Start from [`Corefile::parse`]. It is read from ConfigMap `kube-system/coredns`, as people change it
//! there: server blocks by their zones, and in each the plugin `forward`. What other plugins would do is
//! the lab's to do in any case (`kubernetes`, `health`, `ready`, `loadbalance`) or is not done.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};

/// Where a name server is asked that names no port.
const PORT: u16 = 53;
/// The file that stands for the name servers of the machine that CoreDNS runs on.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Who answers for which names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Corefile {
    blocks: Vec<Block>,
}

/// A server block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    zones: Vec<String>,
    forwards: Vec<Forward>,
}

/// What `forward FROM TO…` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forward {
    from: String,
    to: Vec<SocketAddr>,
}

/// Whose a name is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Of<'a> {
    /// These name servers'.
    Upstream(&'a [SocketAddr]),
    /// A server block's, which has nobody to ask.
    Nobody,
    /// No server block's.
    NoBlock,
}

impl Corefile {
    /// Reads one; `machine` are the name servers that `/etc/resolv.conf` stands for.
    ///
    /// # Errors
    /// The first thing that it cannot be, with its line.
    pub(super) fn parse(text: &str, machine: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut blocks = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let words = words(line);
            let Some(("{", zones)) = words.split_last().map(|(last, rest)| (*last, rest)) else {
                if words.is_empty() {
                    continue;
                }
                bail!(
                    "Corefile:{}: {line:?} begins no server block: it does not end in {{",
                    number + 1
                );
            };
            if zones.is_empty() {
                bail!("Corefile:{}: a server block without a zone", number + 1);
            }
            let zones = zones.iter().map(|zone| zone_of(zone)).collect();
            blocks.push(Block {
                zones,
                forwards: body(&mut lines, machine)
                    .with_context(|| format!("Corefile:{}: in this server block", number + 1))?,
            });
        }
        Ok(Self { blocks })
    }

    /// Whose a name is; in small letters and without the final dot.
    pub(super) fn of(&self, name: &str) -> Of<'_> {
        let zones = self.blocks.iter().flat_map(|block| {
            let longest = longest(block.zones.iter().map(String::as_str), name)?;
            Some((longest, block))
        });
        let Some((_, block)) = zones.max_by_key(|(longest, _)| *longest) else {
            return Of::NoBlock;
        };
        let forwards = block.forwards.iter().flat_map(|forward| {
            let longest = longest([forward.from.as_str()], name)?;
            Some((longest, forward))
        });
        match forwards.max_by_key(|(longest, _)| *longest) {
            Some((_, forward)) => Of::Upstream(&forward.to),
            None => Of::Nobody,
        }
    }
}

/// How long the longest of these domains is that a name is at or below.
fn longest<'a>(domains: impl IntoIterator<Item = &'a str>, name: &str) -> Option<usize> {
    let above = domains
        .into_iter()
        .filter(|domain| domain.is_empty() || super::zone::is_below(name, domain));
    above.map(str::len).max()
}

/// The words of a line, without what is a comment; a brace is a word.
fn words(line: &str) -> Vec<&str> {
    let line = line.split('#').next().unwrap_or_default();
    line.split_whitespace().collect()
}

/// A zone as labels write it: `.:53`, `dns://example.org`, `example.org.:53`; the root is empty.
fn zone_of(label: &str) -> String {
    let label = label.strip_prefix("dns://").unwrap_or(label);
    let zone = label.split(':').next().unwrap_or_default();
    zone.trim_end_matches('.').to_lowercase()
}

/// What is forwarded, in the lines up to the block's end.
fn body<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    machine: &[SocketAddr],
) -> anyhow::Result<Vec<Forward>> {
    let mut forwards = Vec::new();
    let mut depth = 0;
    for (number, line) in lines {
        let words = words(line);
        match words.first() {
            Some(&"}") if depth == 0 => return Ok(forwards),
            Some(&"}") => depth -= 1,
            Some(&"forward") if depth == 0 => {
                let told = words.iter().copied().filter(|word| *word != "{").skip(1);
                let forward = forward(told, machine);
                forwards.push(forward.with_context(|| format!("line {}", number + 1))?);
            }
            _ => {}
        }
        if words.last() == Some(&"{") {
            depth += 1;
        }
    }
    bail!("it has no end: a }} is missing")
}

fn forward<'a>(
    mut told: impl Iterator<Item = &'a str>,
    machine: &[SocketAddr],
) -> anyhow::Result<Forward> {
    let from = zone_of(
        told.next()
            .context("forward says neither from where nor to whom")?,
    );
    let mut to = Vec::new();
    for server in told {
        if server == RESOLV_CONF {
            to.extend(machine);
            continue;
        }
        let server = server.strip_prefix("dns://").unwrap_or(server);
        let address = server.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        let address = address.or_else(|_| server.parse::<SocketAddr>());
        to.push(address.ok().with_context(|| {
            format!("forward to {server:?}, which is neither an address nor {RESOLV_CONF}")
        })?);
    }
    anyhow::ensure!(!to.is_empty(), "forward {from:?} to nobody");
    Ok(Forward { from, to })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    const MACHINE: &str = "172.30.0.1:53";

    fn parse(text: &str) -> anyhow::Result<Corefile> {
        Corefile::parse(text, &[MACHINE.parse().unwrap()])
    }

    #[test]
    fn the_longest_zone_has_a_name() {
        let corefile = parse(
            "# kubeadm's, and a stub domain\n\
             .:53 {\n  errors\n  health {\n    lameduck 5s\n  }\n\
               forward . /etc/resolv.conf {\n    max_concurrent 1000\n  }\n  loadbalance\n}\n\
             corp.example:53 other.example {\n  forward . 10.96.7.1 10.96.7.2:5353\n}\n\
             silent.example {\n  errors\n}\n",
        );
        let corefile = corefile.unwrap();
        let servers = |all: &[&str]| -> Vec<SocketAddr> {
            all.iter().map(|one| one.parse().unwrap()).collect()
        };
        let stub = servers(&["10.96.7.1:53", "10.96.7.2:5353"]);
        let machine = servers(&[MACHINE]);
        for (name, of) in [
            ("example.com", Of::Upstream(&machine)),
            ("corp.example", Of::Upstream(&stub)),
            ("a.b.corp.example", Of::Upstream(&stub)),
            ("www.other.example", Of::Upstream(&stub)),
            ("notcorp.example", Of::Upstream(&machine)),
            ("www.silent.example", Of::Nobody),
        ] {
            assert_eq!(corefile.of(name), of, "{name}");
        }
        assert_eq!(Corefile::default().of("example.com"), Of::NoBlock);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, why) in [
            ("errors\n", "Corefile:1: \"errors\" begins no server block"),
            ("\n{\n}\n", "Corefile:2: a server block without a zone"),
            (". {\n forward . /etc/resolv.conf\n", "a } is missing"),
            (". {\n forward\n}", "line 2: forward says neither"),
            (". {\n forward .\n}", "to nobody"),
            (
                ". {\n forward . dns.example\n}",
                "\"dns.example\", which is neither",
            ),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
