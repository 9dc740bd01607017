//! Which trials, in which order, and what each waits for.
//!
//! Start from [`Plan::new`]. A layer's trials come in three phases: its bring-up; its gates side by
//! side, with the gates of the layers brought up before it (what worked then and does not now is a
//! regression of this layer); and all its other checks, side by side, but for those that need to be
//! alone, which come last, each in a phase of its own. A phase begins when the one before it has ended. Rule: nothing here touches a cluster, so `--list` and a filter without a
//! match never do.
//!
//! A filter selects checks. The bring-up of every layer they stand on is implied, and so are the
//! gates of those layers, since without them a failure says little; regressions are not, unless the
//! filter names them. (A filter that finds nothing but routes of meshes brings up a mesh, too.) A filter finds checks by their names and, where it is a work that their source
//! names (`tutorial`, `sig-network`, `cilium`), by what they answer to.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::{Arguments, Trial};

use crate::check::{Check, Suite};
use crate::provider::{Need, Planned};
use crate::report::TrialKind;
use crate::run::RunInfo;
use crate::stack::Layer;

/// One trial of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) layer: Layer,
    pub(super) kind: TrialKind,
    /// Absent for a bring-up.
    pub(super) check: Option<&'static Check>,
    /// Where the check is from: a lower layer, if it is a regression.
    pub(super) home: Layer,
    /// Which of its layer's phases it is in.
    turn: usize,
}

impl Item {
    pub(super) fn name(&self) -> String {
        match (self.kind, self.check) {
            (TrialKind::Regression, Some(check)) => {
                format!("{}::regression::{}", self.layer, check.id)
            }
            (_, Some(check)) => check.id.to_owned(),
            (_, None) => format!("{}::up", self.layer),
        }
    }

    /// Trials of a phase run side by side; phases run one after the other.
    pub(super) fn phase(&self) -> usize {
        // Far more than a layer has.
        const PHASES: usize = 1000;
        PHASES * self.layer as usize + self.turn
    }
}

/// What a run does.
#[derive(Debug)]
pub(super) struct Plan {
    /// Everything that there is, in order.
    pub(super) all: Vec<Item>,
    /// What runs.
    pub(super) run: Vec<Item>,
    /// What the person's filter matches; a part of `run`.
    pub(super) selected: BTreeSet<String>,
}

impl Plan {
    /// All of what the suites have, what takes `longest` before the rest of its phase.
    pub(super) fn new(suites: &'static [Suite], longest: &[&str], arguments: &Arguments) -> Self {
        let all = everything(suites, longest);
        let selected: Vec<_> = all
            .iter()
            .copied()
            .filter(|item| selects(arguments, item))
            .collect();
        let skipped = |item: &Item| {
            let skips = Arguments {
                filter: None,
                ignored: false,
                ..arguments.clone()
            };
            !matches(&skips, &item.name())
        };
        let layers = layers(&selected);
        let names: BTreeSet<_> = selected.iter().map(Item::name).collect();
        let run = all
            .iter()
            .filter(|item| layers.contains(&item.layer))
            .filter(|item| match item.kind {
                TrialKind::Up => true,
                TrialKind::Gate => !skipped(item),
                TrialKind::Regression | TrialKind::Check => names.contains(&item.name()),
            })
            .copied()
            .collect();
        Self {
            all,
            run,
            selected: names,
        }
    }

    /// libtest's arguments such that it prints, counts and runs exactly `names`.
    pub(super) fn arguments(&self, arguments: &Arguments, names: &BTreeSet<String>) -> Arguments {
        let others = self
            .all
            .iter()
            .map(Item::name)
            .filter(|name| !names.contains(name));
        Arguments {
            filter: None,
            exact: true,
            skip: others.collect(),
            ignored: false,
            ..arguments.clone()
        }
    }

    /// The plan as it is told to whoever has to allow it.
    pub(super) fn told<'a>(&self, run: &'a RunInfo) -> Planned<'a> {
        let mut checks = BTreeMap::new();
        for file in self.run.iter().filter_map(|item| item.check?.manifest) {
            *checks.entry(file).or_default() += 1;
        }
        Planned { run, checks }
    }

    /// The layers that come up.
    pub(super) fn layers(&self) -> BTreeSet<Layer> {
        self.run.iter().map(|item| item.layer).collect()
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.run.iter().map(Item::name).collect()
    }
}

fn everything(suites: &'static [Suite], longest: &[&str]) -> Vec<Item> {
    let mut all = Vec::new();
    for layer in Layer::ALL {
        let of = |layer: Layer| suites.iter().filter(move |suite| suite.layer == layer);
        if of(layer).next().is_none() && !needed(suites, layer) {
            continue;
        }
        all.push(Item {
            layer,
            kind: TrialKind::Up,
            check: None,
            home: layer,
            turn: 0,
        });
        // Regressions first: with one thread, gates must find them judged.
        for lower in Layer::ALL.into_iter().filter(|lower| *lower < layer) {
            all.extend(of(lower).flat_map(|suite| suite.gates).map(|check| Item {
                layer,
                kind: TrialKind::Regression,
                check: Some(check),
                home: lower,
                turn: 1,
            }));
        }
        let own = |kind, check, turn| Item {
            layer,
            kind,
            check: Some(check),
            home: layer,
            turn,
        };
        let gates = of(layer).flat_map(|suite| suite.gates);
        all.extend(gates.map(|check| own(TrialKind::Gate, check, 1)));
        let (alone, together) = longest_first(of(layer), longest)
            .into_iter()
            .partition::<Vec<_>, _>(|check| check.needs.contains(&Need::Alone));
        let together = together.into_iter().map(|check| (check, 2));
        let checks = together.chain(alone.into_iter().zip(3..));
        all.extend(checks.map(|(check, turn)| own(TrialKind::Check, check, turn)));
    }
    all
}

/// What takes longest is not to be what all wait for last: what is known for it, then what makes and deletes things
/// of its own.
fn longest_first<'a>(
    suites: impl Iterator<Item = &'a Suite>,
    longest: &[&str],
) -> Vec<&'static Check> {
    let mut checks: Vec<_> = suites.flat_map(|suite| suite.checks).collect();
    checks.sort_by_key(|check| {
        let known = longest.iter().position(|id| *id == check.id);
        (known.unwrap_or(longest.len()), check.manifest.is_none())
    });
    checks
}

fn needed(suites: &[Suite], layer: Layer) -> bool {
    suites
        .iter()
        .any(|suite| suite.layer.stands_on().contains(&layer))
}

/// What comes up for these. A layer that their own does not stand on, and that they need nevertheless, does where all of
/// them need it; where others run without it they are skipped.
fn layers(selected: &[Item]) -> BTreeSet<Layer> {
    let beside = |item: &Item| item.check.and_then(Check::beside);
    let all = selected
        .iter()
        .map(beside)
        .reduce(|one, other| one.filter(|_| one == other));
    selected
        .iter()
        .map(|item| item.layer)
        .chain(all.flatten())
        .flat_map(|layer| layer.stands_on().iter().copied().chain([layer]))
        .collect()
}

fn selects(arguments: &Arguments, item: &Item) -> bool {
    let name = item.name();
    let named = arguments
        .filter
        .as_ref()
        .is_none_or(|filter| filter.contains("regression") || *filter == name);
    let by_name = matches(arguments, &name);
    (by_name || answers_to_filter(arguments, item)) && (item.kind != TrialKind::Regression || named)
}

/// Whether a check is one of those that answer to the work that the filter names.
fn answers_to_filter(arguments: &Arguments, item: &Item) -> bool {
    let (Some(filter), Some(check)) = (&arguments.filter, item.check) else {
        return false;
    };
    let unfiltered = Arguments {
        filter: None,
        ..arguments.clone()
    };
    !arguments.exact
        && check.works().any(|work| filter.eq_ignore_ascii_case(work))
        && matches(&unfiltered, &item.name())
}

/// Whether libtest would run a trial of this name.
fn matches(arguments: &Arguments, name: &str) -> bool {
    !arguments.is_filtered_out(&Trial::test(name, || Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn check(id: &'static str) -> Check {
        from(id, "")
    }

    const fn from(id: &'static str, source: &'static str) -> Check {
        Check {
            id,
            claim: "",
            source,
            needs: &[],
            manifest: None,
            run: |_| Box::pin(async { Ok(()) }),
        }
    }

    static SUITES: &[Suite] = &[
        Suite {
            layer: Layer::Cni,
            gates: &[check("cni::pods_talk")],
            checks: &[check("cni::mtu")],
        },
        Suite {
            layer: Layer::Services,
            gates: &[check("services::dns")],
            checks: &[
                from(
                    "services::node_port",
                    "tutorial, \"Exposing it\"; sig-network",
                ),
                from("services::hairpin", "sig-network: hairpin"),
            ],
        },
        Suite {
            layer: Layer::Gateway,
            gates: &[check("gateway::accepted")],
            checks: &[check("gateway::path")],
        },
    ];

    fn plan(line: &[&str]) -> Vec<String> {
        let arguments = Arguments::from_iter([&["e2e"], line].concat());
        Plan::new(SUITES, &[], &arguments)
            .run
            .iter()
            .map(Item::name)
            .collect()
    }

    #[test]
    fn without_a_filter_everything_runs_layer_by_layer() {
        assert_eq!(
            plan(&[]),
            [
                "cni::up",
                "cni::pods_talk",
                "cni::mtu",
                "services::up",
                "services::regression::cni::pods_talk",
                "services::dns",
                "services::node_port",
                "services::hairpin",
                "gateway::up",
                "gateway::regression::cni::pods_talk",
                "gateway::regression::services::dns",
                "gateway::accepted",
                "gateway::path",
            ]
        );
    }

    #[test]
    fn a_mesh_comes_up_for_what_is_of_nothing_else() {
        const ROUTED: Check = check("gateway::path");
        const MESHED: Check = Check {
            needs: &[Need::Outside, Need::GatewayFeature("MeshHTTPRouteMatching")],
            ..check("gateway::meshed_path")
        };
        static SUITES: &[Suite] = &[
            Suite {
                layer: Layer::Mesh,
                gates: &[],
                checks: &[check("mesh::splits")],
            },
            Suite {
                layer: Layer::Gateway,
                gates: &[],
                checks: &[ROUTED, MESHED],
            },
        ];
        let layers = |filter| {
            let arguments = Arguments::from_iter(["e2e", filter]);
            Plan::new(SUITES, &[], &arguments).layers()
        };
        assert!(layers("meshed").contains(&Layer::Mesh));
        assert!(!layers("gateway::path").contains(&Layer::Mesh));
        assert!(!layers("gateway::").contains(&Layer::Mesh));
    }

    #[test]
    fn what_has_a_manifest_comes_first_and_the_rest_stays_in_order() {
        const LONG: Check = Check {
            manifest: Some("cni/long.yaml"),
            ..check("cni::long")
        };
        static SUITE: Suite = Suite {
            layer: Layer::Cni,
            gates: &[],
            checks: &[check("cni::b"), check("cni::a"), LONG],
        };
        let ids: Vec<_> = longest_first([&SUITE].into_iter(), &[])
            .iter()
            .map(|check| check.id)
            .collect();
        assert_eq!(ids, ["cni::long", "cni::b", "cni::a"]);
    }

    #[test]
    fn what_needs_to_be_alone_comes_last_and_has_a_phase_of_its_own() {
        const fn alone(id: &'static str) -> Check {
            Check {
                needs: &[Need::Alone],
                manifest: Some("cni/x.yaml"),
                ..check(id)
            }
        }
        static SUITES: &[Suite] = &[Suite {
            layer: Layer::Cni,
            gates: &[],
            checks: &[
                alone("cni::a"),
                check("cni::b"),
                alone("cni::c"),
                check("cni::d"),
            ],
        }];
        let all = everything(SUITES, &["cni::c", "cni::d"]);
        let phases: Vec<_> = all.iter().map(|item| (item.name(), item.phase())).collect();
        let expected = [
            ("cni::up", 0),
            ("cni::d", 2),
            ("cni::b", 2),
            ("cni::c", 3),
            ("cni::a", 4),
        ];
        assert_eq!(
            phases,
            expected.map(|(name, phase)| (name.to_owned(), phase))
        );
    }

    #[test]
    fn a_filter_implies_the_layers_below_and_their_gates() {
        let below = ["cni::up", "cni::pods_talk", "services::up", "services::dns"];
        assert_eq!(
            plan(&["node_port"]),
            [&below[..], &["services::node_port"]].concat()
        );
        assert_eq!(
            plan(&["--exact", "cni::mtu"]),
            ["cni::up", "cni::pods_talk", "cni::mtu"]
        );
        assert_eq!(
            plan(&["gateway::path"]),
            [
                &below[..],
                &["gateway::up", "gateway::accepted", "gateway::path"]
            ]
            .concat()
        );
        assert_eq!(plan(&["cni"]), ["cni::up", "cni::pods_talk", "cni::mtu"]);
    }

    #[test]
    fn a_filter_finds_checks_by_the_work_they_answer_to() {
        let below = ["cni::up", "cni::pods_talk", "services::up", "services::dns"];
        let node_port = [&below[..], &["services::node_port"]].concat();
        assert_eq!(plan(&["Tutorial"]), node_port);
        assert_eq!(
            plan(&["sig-network"]),
            [&node_port[..], &["services::hairpin"]].concat()
        );
        for nothing in [
            &["--exact", "tutorial"][..],
            &["tutor"],
            &["tutorial", "--skip", "services::node_port"],
            &["tutorial", "--ignored"],
        ] {
            assert!(plan(nothing).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn regressions_are_selected_by_name_only() {
        assert!(plan(&["regression::cni"]).contains(&"gateway::regression::cni::pods_talk".into()));
        let exact = plan(&["--exact", "services::regression::cni::pods_talk"]);
        assert_eq!(exact.last().map(String::as_str), Some("services::dns"));
        assert_eq!(exact.len(), 5);
    }

    #[test]
    fn nothing_selected_brings_nothing_up() {
        assert!(plan(&["no-such-check"]).is_empty());
        assert!(plan(&["--ignored"]).is_empty());
        assert!(plan(&["--skip", "::"]).is_empty());
    }

    #[test]
    fn a_skipped_gate_does_not_run() {
        assert!(!plan(&["--skip", "services::dns"]).contains(&"services::dns".into()));
        assert!(plan(&["--skip", "services::dns"]).contains(&"services::node_port".into()));
    }

    #[test]
    fn phases_never_go_down() {
        let plan = Plan::new(SUITES, &[], &Arguments::default());
        assert!(plan.run.iter().map(Item::phase).is_sorted());
    }
}
