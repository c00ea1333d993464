//! What is there twice, or should be: disk arrays, paths to storage, network links and bonds.

use super::history::History;
use super::{Measured, Scene, Trouble, files, number, text, tool, word};
use std::collections::BTreeMap;
use std::path::Path;

/// States of a path, by its checker, in which it carries no data and should.
const FAILED: [&str; 4] = ["faulty", "shaky", "i/o timeout", "delayed"];

/// Arrays of the kernel's own RAID.
pub(super) fn arrays(scene: &Scene<'_>) -> Measured {
    let Some(stat) = text(&scene.root.join("proc/mdstat")) else {
        return Trouble::Missing("the kernel has no disk arrays (md)".into()).into();
    };
    let mut all = Measured::default();
    for (array, missing) in mdstat(&stat) {
        all.add(format!("md.{}.missing", word(array)), Some(missing));
    }
    all
}

/// Arrays, each with the number of disks that it lacks: `[2/1]` is one.
fn mdstat(stat: &str) -> Vec<(&str, i64)> {
    let (mut arrays, mut array) = (Vec::new(), None);
    for line in stat.lines() {
        if let Some((name, rest)) = line.split_once(" : ") {
            array = name.starts_with("md").then_some((name, rest));
            continue;
        }
        let Some((name, _)) = array else { continue };
        let counts = |word: &str| {
            let (all, there) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
            Some(all.parse::<i64>().ok()? - there.parse::<i64>().ok()?)
        };
        if let Some(missing) = line.split_ascii_whitespace().find_map(counts) {
            arrays.push((name, missing.max(0)));
            array = None;
        }
    }
    arrays
}

/// Paths to storage, by multipathd.
pub(super) fn paths(scene: &Scene<'_>) -> Measured {
    let arguments = ["show", "paths", "raw", "format", "%m|%d|%t|%T"];
    let said = match tool::run("multipathd", &arguments, "", scene.limit) {
        Ok(said) => said,
        Err(trouble) => return trouble.into(),
    };
    if said.status != Some(0) {
        let why = said.err.lines().chain(said.out.lines()).next().unwrap_or("it says nothing");
        return Trouble::Missing(format!("multipathd does not answer: {why}")).into();
    }
    let mut all = Measured::default();
    for (map, (good, failed)) in multipath(&said.out) {
        let map = word(map);
        all.add(format!("multipath.{map}.failed_paths"), Some(failed));
        all.add(format!("multipath.{map}.paths_left"), Some(good));
    }
    all
}

/// By map: paths that work, and that do not.
fn multipath(lines: &str) -> BTreeMap<&str, (i64, i64)> {
    let mut maps = BTreeMap::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        let [map, _, state, checker] = words[..] else { continue };
        if map.is_empty() || map.starts_with('[') {
            continue; // A disk without a map.
        }
        let (good, failed) = maps.entry(map).or_insert((0, 0));
        let is_failed = state == "failed" || FAILED.contains(&checker);
        *(if is_failed { failed } else { good }) += 1;
    }
    maps
}

/// Errors and flaps of the node's own network devices, and bonds that lost some.
pub(super) fn links(scene: &Scene<'_>, history: &mut History) -> Measured {
    let mut all = Measured::default();
    for (link, folder) in files(&scene.root.join("sys/class/net"), "") {
        let name = word(&link);
        if let Some(failed) = bond(&folder, &scene.root.join("sys/class/net")) {
            all.add(format!("bond.{name}.failed_links"), Some(failed));
        }
        let named = scene.settings.links.contains(&link);
        let physical = scene.settings.links.is_empty() && folder.join("device").exists();
        if !named && !physical {
            continue;
        }
        let count = |file: &str| number(&folder.join("statistics").join(file)).unwrap_or(0);
        let errors = count("rx_errors").saturating_add(count("tx_errors"));
        let errors = history.per_minute(&format!("{link}.errors"), errors, scene.now);
        all.add(format!("link.{name}.errors_per_minute"), Some(errors));
        // Down and up are two changes.
        let changes = number(&folder.join("carrier_changes"));
        let flaps = changes.map(|count| history.per_hour(&link, count, scene.now));
        all.add(format!("link.{name}.flaps_per_hour"), flaps.map(|changes| (changes + 1) / 2));
    }
    if all.readings.is_empty() {
        all.note(Trouble::Missing(
            "no network device here is hardware; see telemetry.links".into(),
        ));
    }
    all
}

/// How many of a bond's links are down; `None`: it is no bond.
fn bond(folder: &Path, net: &Path) -> Option<i64> {
    let members = text(&folder.join("bonding/slaves"))?;
    let is_down = |member: &&str| {
        let state = text(&net.join(member).join("bonding_slave/mii_status"));
        state.is_some_and(|state| state != "up")
    };
    i64::try_from(members.split_ascii_whitespace().filter(is_down).count()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Root, told};
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn an_array_that_lacks_a_disk_says_so() {
        let found = mdstat(include_str!("fixtures/mdstat.txt"));
        assert_eq!(found, [("md0", 1), ("md1", 0), ("md127", 0)]);
    }

    #[test]
    fn paths_are_counted_by_map_and_disks_without_one_are_not() {
        let found = multipath(include_str!("fixtures/multipath.txt"));
        let expected = [("3600a09800000000000000000deadbeef", (2, 0)), ("mpatha", (1, 2))];
        assert_eq!(found, expected.into());
    }

    #[test]
    fn links_are_judged_by_how_their_counters_grow() {
        let root = Root::new(
            "links",
            &[
                ("sys/class/net/eth0/device/vendor", "0x8086\n"),
                ("sys/class/net/eth0/statistics/rx_errors", "1000\n"),
                ("sys/class/net/eth0/statistics/tx_errors", "0\n"),
                ("sys/class/net/eth0/carrier_changes", "4\n"),
                ("sys/class/net/veth1/carrier_changes", "90\n"),
                ("sys/class/net/bond0/bonding/slaves", "eth0 eth1\n"),
                ("sys/class/net/eth0/bonding_slave/mii_status", "up\n"),
                ("sys/class/net/eth1/bonding_slave/mii_status", "down\n"),
            ],
        );
        let (mut history, begin) = (History::default(), Instant::now());
        links(&root.scene(begin), &mut history);
        root.write("sys/class/net/eth0/statistics/rx_errors", "1120\n");
        root.write("sys/class/net/eth0/carrier_changes", "10\n");
        let found = links(&root.scene(begin + Duration::from_secs(120)), &mut history);
        assert_eq!(
            told(&found),
            [
                ("bond.bond0.failed_links", 1),
                ("link.eth0.errors_per_minute", 60),
                ("link.eth0.flaps_per_hour", 3),
            ]
        );
    }
}
