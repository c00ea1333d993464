//! Corosync's links: how good are the networks that carry the heartbeats?

use super::Check;
use crate::corosync::Links;
use std::collections::BTreeSet;
use steadfast_core::ids::NodeId;
use steadfast_core::snapshot::Snapshot;

/// A ping on a network that is made for this takes less, in microseconds.
const SLOW_MICROS: u64 = 5_000;
const NAME: &str = "corosync links";

/// One check of all of them.
pub(crate) fn check(links: &anyhow::Result<Links>, snapshot: &Snapshot) -> Check {
    let links = match links {
        Ok(links) => links,
        Err(error) => {
            return Check::yellow(NAME, format!("{error:#}"), "see `corosync-cfgtool -s`");
        }
    };
    let others = links.iter().filter(|((node, _), _)| *node != snapshot.node.id);
    let others: Links = others.map(|(key, link)| (*key, *link)).collect();
    if others.is_empty() {
        return Check::green(NAME, "corosync counts nothing: one node, or a transport but knet");
    }
    let down = tell(&others, snapshot, |link| (!link.connected).then(|| "down".into()));
    if !down.is_empty() {
        let text = format!("{down}: the other links carry everything, if there are any");
        return Check::yellow(NAME, text, "see that network, and `corosync-cfgtool -s`");
    }
    let slow = tell(&others, snapshot, |link| {
        let micros = link.latency_micros;
        (micros > SLOW_MICROS).then(|| format!("{} per ping", millis(micros)))
    });
    if !slow.is_empty() {
        let remedy = "use a network of the same site for corosync, apart from storage and guests";
        return Check::yellow(NAME, format!("slow: {slow}"), remedy);
    }
    judge_number(&others)
}

/// All links work. Are there enough?
fn judge_number(links: &Links) -> Check {
    let nodes: BTreeSet<NodeId> = links.keys().map(|(node, _)| *node).collect();
    let numbers: BTreeSet<u32> = links.keys().map(|(_, number)| *number).collect();
    let average = links.values().map(|link| link.latency_micros).max().unwrap_or(0);
    let longest = links.values().map(|link| link.longest_micros).max().unwrap_or(0);
    let downs: u64 = links.values().map(|link| link.downs).sum();
    let text = format!(
        "{} to each of {} nodes; a ping takes {} at most on average, once {}; {downs} times down",
        if numbers.len() == 1 { "1 link".into() } else { format!("{} links", numbers.len()) },
        nodes.len(),
        millis(average),
        millis(longest),
    );
    if numbers.len() == 1 {
        let remedy = "a second link over another switch: with one, a switch that dies stops every \
                      node's network lease";
        return Check::yellow(NAME, text, remedy);
    }
    Check::green(NAME, text)
}

fn tell(
    links: &Links,
    snapshot: &Snapshot,
    what: impl Fn(&crate::corosync::Link) -> Option<String>,
) -> String {
    let name = |id: NodeId| {
        let known = snapshot.nodes.iter().find(|node| node.id == id);
        known.map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    let told = links.iter().filter_map(|((node, number), link)| {
        Some(format!("link {number} to {}: {}", name(*node), what(link)?))
    });
    told.collect::<Vec<_>>().join(", ")
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corosync::Link;
    use crate::doctor::Level;
    use crate::driver::rig;

    fn links(numbers: &[u32], change: impl Fn(&mut Link)) -> anyhow::Result<Links> {
        let good = Link { connected: true, latency_micros: 300, longest_micros: 2_000, downs: 0 };
        let all =
            (1..=3).flat_map(|node| numbers.iter().map(move |number| (NodeId(node), *number)));
        let mut links: Links = all.map(|key| (key, good)).collect();
        links.entry((NodeId(3), 0)).and_modify(change);
        Ok(links)
    }

    fn level(links: &anyhow::Result<Links>) -> (Level, String) {
        let check = check(links, &rig::snapshot());
        (check.level, check.text)
    }

    #[test]
    fn two_quick_links_are_green_and_one_alone_is_yellow() {
        let (is, text) = level(&links(&[0, 1], |_| ()));
        assert_eq!(is, Level::Green);
        assert!(text.starts_with("2 links to each of 2 nodes; a ping takes 0.3 ms"), "{text}");
        assert_eq!(level(&links(&[0], |_| ())).0, Level::Yellow);
    }

    #[test]
    fn a_link_that_is_down_or_slow_is_named_with_its_node() {
        let (is, text) = level(&links(&[0, 1], |link| link.connected = false));
        assert_eq!(is, Level::Yellow);
        assert!(text.contains("link 0 to n3: down"), "{text}");
        let (is, text) = level(&links(&[0, 1], |link| link.latency_micros = 21_000));
        assert_eq!(is, Level::Yellow);
        assert!(text.contains("link 0 to n3: 21.0 ms per ping"), "{text}");
    }

    #[test]
    fn a_transport_that_counts_nothing_is_no_fault_and_silence_is_yellow() {
        assert_eq!(level(&Ok(Links::new())).0, Level::Green);
        assert_eq!(level(&Err(anyhow::anyhow!("no answer"))).0, Level::Yellow);
    }
}
