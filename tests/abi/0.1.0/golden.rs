//! The golden policy of ABI 1: all kinds, one parameter, nothing clever.
use steadfast_sdk::prelude::*;

parameters! {
    /// Likes free memory.
    pub struct Golden {
        /// Points for each free gibibyte.
        per_gib: i64 = 10,
    }
}

impl NodePriority for Golden {
    fn priority(&self, node: &NodeFacts) -> Score {
        Score::new()
            .term("free memory", points(mib(node.memory_free_mib / 1024), self.per_gib))
            .term("flaps", -points(node.flaps.into(), 50))
    }
}

impl Placement for Golden {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let free = mib(node.memory_free_mib / 1024);
        let score = Score::new()
            .term("free memory", points(free, self.per_gib))
            .term("same group", -points(now.peers(vm, "group", node.id).into(), 1_000))
            .term("adversaries", -points(now.adversaries(vm, node.id).into(), 100_000))
            .term("was here", points((vm.last_node == Some(node.id)).into(), 5));
        (!node.cordoned).then_some(score)
    }
}

impl Risk for Golden {
    fn risk(&self, _: &NodeFacts, telemetry: &[Reading]) -> Score {
        // By name, not in the order of the question: a law.
        let mut readings: Vec<&Reading> = telemetry.iter().collect();
        readings.sort_by(|one, next| one.name.cmp(&next.name).then(one.value.cmp(&next.value)));
        readings.into_iter().fold(Score::new(), |score, reading| {
            score.term(reading.name.clone(), reading.value)
        })
    }
}

export_policy! {
    Golden: NodePriority + Placement + Risk,
    name = "golden",
    about = "What a module of the first SDK of ABI 1 was.",
}
