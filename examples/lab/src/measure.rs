//! Failover times over several runs.

use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use std::time::Duration;

use crate::failover::{Failover, MILESTONES, RUNNING, Role, TICKING};
use crate::lab::Lab;
use crate::wait;

/// Cuts a node of this role, `runs` times, with the whole lab in good state before each.
pub fn measure(lab: &Lab, role: Role, runs: usize) -> Result<Vec<Failover>> {
    let mut results = Vec::new();
    for run in 1..=runs {
        println!("run {run} of {runs}");
        results.push(one(lab, role, PHASE * u32::try_from(run).unwrap_or(0))?);
    }
    Ok(results)
}

/// Each run cuts the power at another phase of the beats, which all nodes send nearly together: a prime, so that ten runs
/// spread over the beat.
const PHASE: Duration = Duration::from_millis(137);

/// One failover from good state to good state, `phase` after the state was found good.
pub fn one(lab: &Lab, role: Role, phase: Duration) -> Result<Failover> {
    let leader = lab.wait_until_good()?;
    lab.ensure_guest_on(lab.victim(role, leader))?;
    // Moving a guest takes seconds, in which the leader may have changed.
    let victim = lab.victim(role, lab.wait_until_good()?);
    wait::sleep(phase)?;
    let result = lab.failover(victim)?;
    lab.check_single()?;
    if lab.power(victim).is_none() {
        lab.boot(victim)?;
    }
    lab.wait_until_good()?;
    Ok(result)
}

pub fn median(results: &[Failover]) -> Option<u64> {
    let mut times: Vec<u64> = results.iter().map(|result| result.ms).collect();
    times.sort_unstable();
    let middle = times.len() / 2;
    match times.len() {
        0 => None,
        length if length % 2 == 1 => Some(times[middle]),
        _ => Some(times[middle - 1].midpoint(times[middle])),
    }
}

/// A row a step, a column a failover.
pub fn table(columns: &[(String, &Failover)]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    let titles = columns.iter().map(|(title, _)| title.clone());
    table.set_header(std::iter::once("ms since the power cut".into()).chain(titles));
    let victims = columns.iter().map(|(_, result)| result.victim.to_string());
    table.add_row(std::iter::once("node".into()).chain(victims));
    let steps = MILESTONES.iter().map(|(title, _)| *title).chain([RUNNING, TICKING]);
    for step in steps {
        let times = columns.iter().map(|(_, result)| {
            result.milestones.get(step).map_or_else(|| "-".into(), u64::to_string)
        });
        table.add_row(std::iter::once(step.to_owned()).chain(times));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Node;

    fn took(ms: u64) -> Failover {
        let (guests, milestones) = Default::default();
        Failover { victim: Node(1), ms, guests, milestones }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[took(9), took(1), took(5)]), Some(5));
        assert_eq!(median(&[took(9), took(1), took(5), took(6)]), Some(5));
    }
}
