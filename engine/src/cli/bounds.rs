//! The bounds as people read them: a table, and below it how each adds up.

use super::format;
use crate::config::Bound;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use steadfast_core::bounds::{Assumed, Term};

/// Rows of the table: equal ones are told once.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    failure: &'a str,
    role: &'a str,
    fence_agent: &'static str,
    bound: &'a Bound,
}

/// Everything about the bounds on a few screens' lines.
pub(super) fn render(bounds: &[Bound], assumed: &Assumed) -> String {
    let lines = merge_roles(merge_agents(bounds));
    let mut table = format::table(&["FAILURE", "OF", "FENCE AGENT", "BOUND", "SLOWEST", "SUM"]);
    let mut sums: Vec<&Bound> = Vec::new();
    for line in &lines {
        let number = match sums.iter().position(|known| known.terms == line.bound.terms) {
            _ if line.bound.terms.is_empty() => None,
            Some(known) => Some(known + 1),
            None => {
                sums.push(line.bound);
                Some(sums.len())
            }
        };
        table.add_row([
            line.failure.to_string(),
            line.role.to_string(),
            line.fence_agent.to_string(),
            seconds(line.bound.bound_ms),
            seconds(line.bound.slowest_ms),
            number.map_or_else(|| line.bound.note.clone(), |number| format!("({number})")),
        ]);
    }
    let mut text = format!("From the fault to the start order:\n{}\n\n", table.trim_fmt());
    text.push_str(&assumptions(assumed));
    for (index, bound) in sums.iter().enumerate() {
        let _ = write!(text, "\n({}) {}\n", index + 1, seconds(bound.bound_ms));
        bound.terms.iter().for_each(|term| text.push_str(&term_line(term)));
    }
    text
}

fn term_line(term: &Term) -> String {
    format!("{:>12}  {}\n", term.length.to_string(), term.name)
}

fn assumptions(assumed: &Assumed) -> String {
    let Assumed { cycle, fence_agent, verification, rule_4 } = assumed;
    let rule = if *rule_4 { "may be used" } else { "may not be used" };
    format!(
        "BOUND takes it that a storage cycle ends within {cycle} and a fence agent succeeds within {fence_agent}; \
         SLOWEST takes the storage cycle deadline and the fence agent's time-out. Verification IPs are told \
         unreachable after {verification}. Rule 4 (time as proof) {rule}. One fault at a time; VMs that wait for \
         others start later.\n"
    )
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100))
}

fn merge_agents(bounds: &[Bound]) -> Vec<Line<'_>> {
    let mut pairs: BTreeMap<(usize, &str), Vec<&Bound>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for bound in bounds {
        let place = order.iter().position(|known| *known == bound.failure).unwrap_or_else(|| {
            order.push(&bound.failure);
            order.len() - 1
        });
        pairs.entry((place, &bound.role)).or_default().push(bound);
    }
    // Members before leaders.
    let mut sorted: Vec<_> = pairs.into_iter().collect();
    sorted.sort_by_key(|((place, role), _)| (*place, *role != "member"));
    sorted.into_iter().flat_map(|(_, pair)| lines_of(&pair)).collect()
}

fn lines_of<'a>(pair: &[&'a Bound]) -> Vec<Line<'a>> {
    let line = |bound: &'a Bound, fence_agent| {
        let Bound { failure, role, .. } = bound;
        Line { failure, role, fence_agent, bound }
    };
    match pair {
        [one, other] if is_same(one, other) => vec![line(one, "either")],
        _ => pair.iter().map(|b| line(b, if b.fence_agent { "yes" } else { "no" })).collect(),
    }
}

fn merge_roles(lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let mut merged: Vec<Line<'_>> = Vec::new();
    for line in lines {
        let same = |known: &&mut Line<'_>| {
            known.failure == line.failure
                && known.fence_agent == line.fence_agent
                && is_same(known.bound, line.bound)
        };
        match merged.iter_mut().find(same) {
            Some(known) => known.role = "either",
            None => merged.push(line),
        }
    }
    merged
}

fn is_same(one: &Bound, other: &Bound) -> bool {
    (one.bound_ms, one.slowest_ms, &one.terms) == (other.bound_ms, other.slowest_ms, &other.terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bounds;
    use steadfast_core::config::Timing;
    use steadfast_core::time::Millis;

    #[test]
    fn equal_rows_are_told_once_and_every_sum_is_spelled_out() {
        let assumed = Assumed::working(true);
        let text = render(&bounds(&Timing::standard(Millis(1_100)), &assumed), &assumed);
        let first = text.lines().nth(2).expect("a row");
        let words: Vec<_> = first.split_whitespace().collect();
        assert_eq!(words, ["Full", "failure", "either", "yes", "6.6", "s", "26.5", "s", "(1)"]);
        assert!(text.contains("Excluded from HA cluster"), "{text}");
        assert!(text.contains("    10350 ms  rule 4: (L + S) * 1.01 + 250 ms"), "{text}");
        assert!(text.contains("a storage cycle ends within 100 ms"), "{text}");
    }
}
