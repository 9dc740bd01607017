//! In the place of the lab, where there is none.
//!
//! A lab is made of Linux' namespaces, netlink and nftables. Elsewhere who asks for one, or asks for nothing, is told what
//! there is.

use super::{PROVIDERS, Provider};
use crate::settings::{BadInput, Settings};

/// The lab of another system than Linux.
pub(super) struct NoLab;

impl NoLab {
    /// Nothing: only a lab is this program, started again.
    pub(super) const fn init() {}

    /// # Errors
    /// Always.
    pub(super) fn provider(_: &Settings) -> Result<Box<dyn Provider>, BadInput> {
        let others: Vec<_> = (PROVIDERS.iter().copied())
            .filter(|name| *name != "lab")
            .collect();
        Err(BadInput(format!(
            "the lab, which a run takes unless STRATA_PROVIDER says otherwise, needs Linux, whose network namespaces its \
             nodes and pods are, and this is {}; set STRATA_PROVIDER to one of {}",
            std::env::consts::OS,
            others.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_lab_is_told_why_there_is_none_and_what_there_is() {
        NoLab::init();
        let settings = Settings::from_vars([]).unwrap();
        let said = NoLab::provider(&settings).err().unwrap().to_string();
        assert!(
            said.starts_with(
                "the lab, which a run takes unless STRATA_PROVIDER says otherwise, needs Linux"
            ),
            "{said}"
        );
        assert!(
            said.ends_with("; set STRATA_PROVIDER to one of kind, minikube, k3s, existing"),
            "{said}"
        );
    }
}
