//! What corosync says of its links to other nodes (source: its statistics map, `stats.knet.node<N>.link<L>`).

use super::map::ask_for;
use anyhow::{Context, Result};
use rust_corosync::cmap;
use std::collections::BTreeMap;
use std::time::Duration;
use steadfast_core::ids::NodeId;

/// One link to one node, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// It carries messages now.
    pub connected: bool,
    /// Average time of a ping there and back, in microseconds.
    pub latency_micros: u64,
    /// The longest since corosync started, in microseconds.
    pub longest_micros: u64,
    /// How often it went down since corosync started.
    pub downs: u64,
}

/// Links by node and number. Empty where the transport is not knet, which alone counts them.
pub type Links = BTreeMap<(NodeId, u32), Link>;

/// Reads them. Blocks at most `patience`: for tools, not for the lease path.
///
/// # Errors
/// Corosync is not there, or does not answer.
pub fn read_links(patience: Duration) -> Result<Links> {
    ask_for(patience, read)
}

fn read() -> Result<Links> {
    const PREFIX: &str = "stats.knet.node";
    let map = cmap::initialize(cmap::Map::Stats).context("cannot connect")?;
    let keys = cmap::CmapIterStart::new(&map, PREFIX).context("cannot list the links")?;
    let keys: Vec<String> = keys.into_iter().map(|item| item.key_name().to_string()).collect();
    let value = |key: &String| Some((key.clone(), number(&cmap::get(&map, key).ok()?)?));
    Ok(gather(keys.iter().filter_map(value)))
}

fn number(data: &cmap::Data) -> Option<u64> {
    match data {
        cmap::Data::UInt8(value) => Some((*value).into()),
        cmap::Data::UInt16(value) => Some((*value).into()),
        cmap::Data::UInt32(value) => Some((*value).into()),
        cmap::Data::UInt64(value) => Some(*value),
        _ => None,
    }
}

fn gather(values: impl Iterator<Item = (String, u64)>) -> Links {
    let mut links = Links::new();
    for (key, value) in values {
        let Some((node, link, field)) = parse(&key) else { continue };
        let link = links.entry((node, link)).or_default();
        match field {
            "connected" => link.connected = value != 0,
            "latency_ave" => link.latency_micros = value,
            "latency_max" => link.longest_micros = value,
            "down_count" => link.downs = value,
            _ => {}
        }
    }
    links
}

/// `stats.knet.node2.link0.latency_ave`.
fn parse(key: &str) -> Option<(NodeId, u32, &str)> {
    let mut words = key.split('.').skip(2);
    let node = words.next()?.strip_prefix("node")?.parse().ok()?;
    let link = words.next()?.strip_prefix("link")?.parse().ok()?;
    Some((NodeId(node), link, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_gathered_from_the_statistics_and_the_rest_is_left() {
        let values = [
            ("stats.knet.node2.link0.connected", 1),
            ("stats.knet.node2.link0.latency_ave", 310),
            ("stats.knet.node2.link0.latency_max", 4_100),
            ("stats.knet.node2.link0.down_count", 2),
            ("stats.knet.node2.link0.tx_data_bytes", 9),
            ("stats.knet.node3.link1.connected", 0),
            ("stats.knet.handle.tx_uncompressed_packets", 7),
        ];
        let links = gather(values.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let first = Link { connected: true, latency_micros: 310, longest_micros: 4_100, downs: 2 };
        let expected = [((NodeId(2), 0), first), ((NodeId(3), 1), Link::default())];
        assert_eq!(links, expected.into());
    }
}
