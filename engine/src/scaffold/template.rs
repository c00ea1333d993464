//! The texts of a new policy.

use super::New;
use crate::policy::Kind;
use std::path::Path;

/// In the folder of the copy.
pub(super) const COPY_README: &str = "\
This is the SDK, and the default policies, of the Steadfast that wrote this crate, unchanged. To build for another
version of the agent, replace this folder by that of `steadfast policy new` there.
";

const MANIFEST: &str = r#"[package]
name = "NAME"
description = "What it prefers, in a sentence."
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
steadfast-sdk = { path = "ROOT/sdk" }
DEPENDENCIES
# Not a member of a workspace around it, nor the SDK a member of this one.
[workspace]
exclude = ["steadfast"]

# Small and quick; a number that overflows is a panic, as in the tests, not a wrong verdict.
[profile.release]
opt-level = 3
lto = true
codegen-units = 1
panic = "abort"
strip = true
overflow-checks = true
"#;

const SOURCE: &str = "\
//! NAME: what it prefers, in a sentence.
IMPORTS
use steadfast_sdk::prelude::*;

parameters! {
    /// What an operator may set in `NAME.json` beside `NAME.wasm`.
    pub struct TYPE {
PARAMETERS
    }
}

IMPLEMENTATIONS
export_policy! {
    TYPE: TRAITS,
    name = \"NAME\",
    about = \"What it prefers, in a sentence.\",
}

laws!(TYPE);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::fixture::Fixture;
TESTS}
";

const README: &str = "\
# NAME

A policy for Steadfast (KINDS). What it prefers is in `src/lib.rs`; two commands:

    cargo test
    cargo build --release --target wasm32-unknown-unknown

The first tries the laws that every policy keeps, and your own tests. The second writes the module,
`target/wasm32-unknown-unknown/release/FILE.wasm` (once before: `rustup target add wasm32-unknown-unknown`).

Then, on every node, as root: copy the module to the agent's policy folder under a name that begins with a dot, and rename it to
`NAME.wasm`. A `NAME.json` beside it sets its parameters. `steadfast policy list` says whether it decides, or what is
wrong with it.
";

/// What a kind's template is made of.
struct Part {
    package: &'static str,
    import: &'static str,
    trait_name: &'static str,
    parameters: &'static str,
    implementation: &'static str,
    test: &'static str,
}

const fn part(kind: Kind) -> Part {
    match kind {
        Kind::NodePriority => NODE_PRIORITY,
        Kind::Placement => PLACEMENT,
        Kind::Risk => RISK,
    }
}

const NODE_PRIORITY: Part = Part {
    package: "node-priority",
    import: "use steadfast_policy_node_priority::NodePriorityDefault;",
    trait_name: "NodePriority",
    parameters: "
        /// The default policy's own parameters for node priority.
        leaders: NodePriorityDefault = NodePriorityDefault::default(),
        /// Points won by a node with the label `lead = \"yes\"`.
        leads: i64 = 50_000,",
    implementation: r#"impl NodePriority for TYPE {
    fn priority(&self, node: &NodeFacts) -> Score {
        let leads = node.labels.get("lead").is_some_and(|it| it == "yes");
        let score = self.leaders.priority(node);
        score.term("chosen to lead", points(leads.into(), self.leads))
    }
}
"#,
    test: r#"
    #[test]
    fn a_node_that_is_chosen_leads() {
        let cluster = Fixture::cluster(2).label("n2", "lead", "yes");
        let value = |node| cluster.priority_of::<TYPE>(node).value;
        assert!(value("n2") > value("n1"));
    }
"#,
};

const PLACEMENT: Part = Part {
    package: "placement",
    import: "use steadfast_policy_placement::PlacementDefault;",
    trait_name: "Placement",
    parameters: "
        /// The default policy's own parameters for placement.
        places: PlacementDefault = PlacementDefault::default(),
        /// Points won where a node's label `tier` is that of the VM.
        same_tier: i64 = 10_000,",
    implementation: r#"impl Placement for TYPE {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let same = vm.labels.get("tier").is_some_and(|it| node.labels.get("tier") == Some(it));
        let score = self.places.score(vm, node, now)?;
        Some(score.term("same tier", points(same.into(), self.same_tier)))
    }
}
"#,
    test: r#"
    #[test]
    fn a_vm_goes_to_a_node_of_its_tier() {
        let cluster = Fixture::cluster(3).label("n3", "tier", "gold").vm("a").vm("b");
        let placed = cluster.vm_label("b", "tier", "gold").place::<TYPE>();
        assert_eq!((&*placed["a"], &*placed["b"]), ("n1", "n3"));
    }
"#,
};

const RISK: Part = Part {
    package: "risk",
    import: "use steadfast_policy_risk::RiskDefault;",
    trait_name: "Risk",
    parameters: "
        /// The default policy's own parameters for risk.
        risks: RiskDefault = RiskDefault::default(),
        /// Degrees Celsius of the inlet air from which a node is at risk.
        inlet_c: i64 = 35,",
    implementation: r#"impl Risk for TYPE {
    fn risk(&self, node: &NodeFacts, telemetry: &[Reading]) -> Score {
        let hot = |it: &Reading| it.name == "external.room.inlet_c" && it.value >= self.inlet_c;
        let score = self.risks.risk(node, telemetry);
        score.term("hot inlet air", points(telemetry.iter().any(hot).into(), 300))
    }
}
"#,
    test: r#"
    #[test]
    fn hot_air_is_a_risk() {
        let cluster = Fixture::cluster(1).telemetry("n1", "external.room.inlet_c", 40);
        assert_eq!(cluster.risk_of::<TYPE>("n1").value, 300);
    }
"#,
};

pub(super) fn manifest(new: &New, root: &Path) -> String {
    let root = root.display().to_string();
    let dependency = |part: &Part| {
        let package = part.package;
        format!(
            "steadfast-policy-{package} = {{ path = \"{root}/policies/{package}\", default-features = false }}\n"
        )
    };
    let dependencies: String = parts(new).iter().map(dependency).collect();
    let text = MANIFEST.replace("NAME", &new.name).replace("ROOT", &root);
    text.replace("DEPENDENCIES\n", &format!("{dependencies}\n"))
}

pub(super) fn source(new: &New) -> String {
    let parts = parts(new);
    let joined = |of: fn(&Part) -> &str, between: &str| {
        parts.iter().map(of).collect::<Vec<_>>().join(between)
    };
    let parameters = joined(|part| part.parameters.trim_start_matches('\n'), "\n");
    let text = SOURCE.replace("IMPORTS", &joined(|part| part.import, "\n"));
    let text = text.replace("PARAMETERS", &parameters);
    let text = text.replace("IMPLEMENTATIONS", &joined(|part| part.implementation, "\n"));
    let text = text.replace("TRAITS", &joined(|part| part.trait_name, " + "));
    let text = text.replace("TESTS", &joined(|part| part.test, ""));
    text.replace("TYPE", &type_name(&new.name)).replace("NAME", &new.name)
}

pub(super) fn readme(new: &New) -> String {
    let kinds: Vec<_> = new.kinds.iter().map(|kind| kind.name()).collect();
    let text = README.replace("KINDS", &kinds.join(", "));
    text.replace("NAME", &new.name).replace("FILE", &new.name.replace('-', "_"))
}

fn parts(new: &New) -> Vec<Part> {
    Kind::ALL.into_iter().filter(|kind| new.kinds.contains(kind)).map(part).collect()
}

/// `rack-aware` is `RackAware`.
fn type_name(name: &str) -> String {
    let words = name.split(['-', '_']);
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    };
    words.map(capital).collect()
}
