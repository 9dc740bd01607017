//! Reading of a table that is there what it takes to replace it: the names of its chains, and the sets that rules fill.

use jiff::{Span, SpanRelativeTo, Unit};

use super::ruleset::Ruleset;
use crate::topology::IpFamily;

impl Ruleset {
    /// The outline of a table as `nft --terse list table` writes it; none where that cannot be understood.
    pub(super) fn outline(family: IpFamily, table: &'static str, listed: &str) -> Option<Self> {
        let mut outline = Self::of(family, table);
        let mut set = None;
        for line in listed.lines().map(str::trim) {
            if let Some(name) = opened(line, "chain ") {
                outline.chains.entry(name.to_owned()).or_default();
            } else if let Some(name) = opened(line, "set ").or_else(|| opened(line, "map ")) {
                set = Some(name);
            } else if let Some(timeout) = line.strip_prefix("timeout ") {
                outline.dynamic.insert(set?.to_owned(), seconds(timeout)?);
            }
        }
        Some(outline)
    }
}

/// The name of what a line begins.
fn opened<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.strip_prefix(what)?.strip_suffix(" {")
}

/// `1d3h`, in seconds.
fn seconds(text: &str) -> Option<u32> {
    let span: Span = text.parse().ok()?;
    let whole = SpanRelativeTo::days_are_24_hours();
    let seconds = span.total((Unit::Second, whole)).ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range"
    )]
    (0.0..=f64::from(u32::MAX))
        .contains(&seconds)
        .then_some(seconds as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_has_chains_and_the_sets_that_rules_fill() {
        let listed = "table ip t {\n\tcomment \"x\"\n\tset a {\n\t\ttype ipv4_addr\n\t}\n\tset b-1/2 {\n\t\ttype ipv4_addr\n\t\tsize 65535\n\t\t\
            flags dynamic,timeout\n\t\ttimeout 1d3h\n\t}\n\tmap m {\n\t\ttype ipv4_addr : verdict\n\t}\n\tchain one {\n\t\t\
            type nat hook output priority -100; policy accept;\n\t\tip daddr vmap @m\n\t}\n\tchain two/tcp/ {\n\t}\n}\n";
        let outline = Ruleset::outline(IpFamily::V4, "t", listed).unwrap();
        let chains: Vec<_> = outline.chains.keys().map(String::as_str).collect();
        assert_eq!(chains, ["one", "two/tcp/"]);
        let sets: Vec<_> = outline
            .dynamic
            .iter()
            .map(|(name, timeout)| (name.as_str(), *timeout))
            .collect();
        assert_eq!(sets, [("b-1/2", 97_200)]);
        assert_eq!(
            Ruleset::outline(IpFamily::V4, "t", "set a {\ntimeout soon"),
            None
        );
    }
}
