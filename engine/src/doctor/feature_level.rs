//! Is the cluster in the middle of an upgrade?

use super::Check;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::snapshot::Snapshot;

/// Green: everybody uses all that this release has.
pub(super) fn check(snapshot: &Snapshot) -> Check {
    let (in_force, newest) = (snapshot.feature_level, FeatureLevel::NEWEST);
    if in_force >= newest {
        return Check::green("feature level", format!("{in_force}, all that this release speaks"));
    }
    let text = format!("{in_force}, this release speaks {newest}{}", behind(snapshot));
    let remedy =
        "finish the upgrade; cluster.feature_level in a node's configuration holds it back too";
    Check::yellow("feature level", text, remedy)
}

/// Who holds it back, as "; n3 speaks 0".
pub(crate) fn behind(snapshot: &Snapshot) -> String {
    let newest = FeatureLevel::NEWEST;
    let words = |node: &steadfast_core::snapshot::NodeView| match node.speaks {
        Some(spoken) if spoken < newest => Some(format!("; {} speaks {spoken}", node.name)),
        Some(_) => None,
        None => Some(format!("; {} has not said yet", node.name)),
    };
    snapshot.nodes.iter().filter_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use crate::driver::rig::snapshot;

    #[test]
    fn an_unfinished_upgrade_is_yellow_and_says_whom_it_waits_for() {
        let mut snapshot = snapshot();
        snapshot.feature_level = FeatureLevel::OLDEST;
        for node in &mut snapshot.nodes {
            node.speaks = Some(FeatureLevel::NEWEST);
        }
        snapshot.nodes[2].speaks = Some(FeatureLevel::OLDEST);
        let found = check(&snapshot);
        assert_eq!(found.level, Level::Yellow);
        assert!(found.text.ends_with("; n3 speaks 0"), "{}", found.text);
        snapshot.feature_level = FeatureLevel::NEWEST;
        assert_eq!(check(&snapshot).level, Level::Green);
    }
}
