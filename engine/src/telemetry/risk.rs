//! Asks the risk policy about this node, with everything that is known of its equipment.

use super::Hub;
use crate::Sink;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::Digest;
use steadfast_core::proactive::Assessed;
use steadfast_sdk::wire::{NodeFacts, RiskQuestion};

/// Sources are given so long for their first measurement.
const FIRST: Duration = Duration::from_secs(5);

/// Asks once an `interval`. `facts` says what policies are told of this node now, and own time in milliseconds. `assess` answers
/// what it is asked, if anything; `None`: there is nobody to ask any more, and this ends.
///
/// # Errors
/// No thread can be started.
pub fn start(
    interval: Duration,
    hub: Arc<Hub>,
    facts: impl Fn() -> Option<(u64, NodeFacts)> + Send + 'static,
    assess: impl Fn(Option<&RiskQuestion>) -> Option<Option<Assessed>> + Send + 'static,
    events: Sink,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("risk".into()).spawn(move || {
        std::thread::sleep(FIRST.min(interval));
        loop {
            let question = facts().map(|(now_ms, node)| question(&hub, now_ms, node));
            let Some(answer) = assess(question.as_ref()) else { return };
            if let (Some(question), Some(assessed)) = (question, answer) {
                hub.assessed(assessed.clone(), question.telemetry.len());
                events(Event::RiskAssessed(Box::new(assessed)));
            }
            std::thread::sleep(interval);
        }
    })?;
    Ok(())
}

fn question(hub: &Hub, now_ms: u64, node: NodeFacts) -> RiskQuestion {
    let mut question = RiskQuestion { now_ms, seed: 0, node, telemetry: hub.readings() };
    let bytes = serde_json::to_vec(&question).unwrap_or_default();
    let digest = Digest::of(&bytes);
    question.seed = u64::from_be_bytes(digest.0[..8].try_into().unwrap_or_default());
    question
}
