//! The agent as the kernel sees it: locked memory, real-time threads, size; and what its watchdog does when it hangs.

use super::{ha_guests_on, lab, runs_elsewhere, wall_ms, without_fence_agent};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::power_log::Cause;
use steadfast_lab::sys::Process;

/// More than an agent of a small cluster needs, policies included.
const MOST_RESIDENT_KIB: u64 = 100 << 10;
const REAL_TIME: [&str; 3] = ["lease", "corosync", "watchdog"];

fn agent(lab: &Lab, node: Node) -> Result<Process> {
    lab.named(node, "steadfastd").first().copied().context("no agent")
}

fn kib(status: &str, field: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    number.with_context(|| format!("{field} is missing in {status}"))
}

/// Policy (2: SCHED_RR) and real-time priority of each thread, by name.
fn scheduling(pid: i32) -> Result<BTreeMap<String, (u32, u32)>> {
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(')').context("odd stat")?;
        let name = name.split_once('(').context("odd stat")?.1.to_owned();
        // proc(5): fields 40 and 41, the first after the name being 3.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        threads.insert(name, (fields[38].parse()?, fields[37].parse()?));
    }
    Ok(threads)
}

#[test]
fn the_agents_memory_is_locked_and_three_threads_are_real_time() -> Result<()> {
    let lab = lab("realtime", Options::default())?;
    let leader = lab.wait_until_good()?;
    for node in lab.nodes() {
        let pid = agent(&lab, node)?.pid;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let (locked, resident) = (kib(&status, "VmLck")?, kib(&status, "VmRSS")?);
        let threads = scheduling(pid)?;
        let raised: Vec<_> = threads.iter().filter(|(_, (policy, _))| *policy == 2).collect();
        let role = if node == leader { "leader" } else { "member" };
        println!(
            "realtime: {node} ({role}): resident {resident} KiB, locked {locked} KiB, {} threads, real-time: {raised:?}",
            threads.len()
        );
        ensure!(resident <= MOST_RESIDENT_KIB, "{resident} KiB are resident");
        // The kernel counts what is mapped, not only what is touched.
        ensure!(locked >= resident / 2, "of {resident} KiB {locked} KiB are locked");
        for name in REAL_TIME {
            let thread = threads.get(name).with_context(|| format!("no thread {name}"))?;
            ensure!(*thread == (2, 10), "thread {name} is scheduled as {thread:?}");
        }
    }
    lab.check_single()
}

#[test]
fn a_node_whose_agent_alone_hangs_is_reset_by_its_watchdog_and_its_guests_run_elsewhere_once()
-> Result<()> {
    let lab = lab("hung-agent", without_fence_agent())?;
    let node = lab.victim(Role::Member, lab.wait_until_good()?);
    lab.ensure_guest_on(node)?;
    let moved = ha_guests_on(&lab, node);
    let watch = super::Watch::begin(&lab);
    let begin = wall_ms();
    lab.hang_agent(node)?;
    for name in &moved {
        let took = runs_elsewhere(&lab, name, node, Duration::from_secs(30))?;
        println!("hung-agent: {name} elsewhere after {} ms", took.as_millis());
    }
    let cuts = lab.power_cuts()?;
    let cut = cuts.iter().find(|cut| cut.node == node).context("its power was not cut")?;
    let after = cut.wall_ms.saturating_sub(begin);
    println!(
        "hung-agent: power cut by {:?} {after} ms after its agent hung, W is 4000 ms",
        cut.cause
    );
    ensure!(cut.cause == Cause::Watchdog && after <= 4_500, "{cut:?} after {after} ms");
    ensure!(cuts.len() == 1, "others lost power too: {cuts:?}");
    lab.boot(node)?;
    lab.wait_until_good()?;
    lab.check_single()?;
    watch.end()
}
