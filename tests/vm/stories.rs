//! What may happen to a node, and what must come of it.

use crate::cluster::{Cluster, GUEST, NODES, PATIENCE};
use crate::say;
use anyhow::{Context, Result, ensure};
use std::thread;
use std::time::{Duration, Instant};

/// L + S of the time-outs in use: nothing executes on a node that long after its last evidence.
const LEASE_AND_STOP: Duration = Duration::from_millis(27_000);
/// What an emulated device and this test may be late by on a busy host.
const LATE: Duration = Duration::from_secs(3);

fn others(n: u8) -> Vec<u8> {
    (1..=NODES).filter(|other| *other != n).collect()
}

/// Where the guest runs now.
fn home(cluster: &Cluster) -> Result<u8> {
    (1..=NODES).find(|n| cluster.has_guest(*n)).context("the guest runs nowhere")
}

/// The node of the guest loses its power, and gets it back.
pub fn power_is_cut(cluster: &mut Cluster) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: the power of n{n} is cut"));
    let begin = Instant::now();
    cluster.node_mut(n).power_off();
    let (to, at) = cluster.wait_for_guest_elsewhere(&others(n))?;
    say(&format!("{GUEST} runs on n{to}, {:.1} s after the power cut", (at - begin).as_secs_f64()));
    cluster.node_mut(n).power_on()?;
    comes_back(cluster, n)
}

/// The node of the guest loses network and storage; both hang rather than fail, as they do.
pub fn network_and_storage_are_lost(cluster: &mut Cluster) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: n{n} loses network and storage"));
    let begin = Instant::now();
    cluster.node_mut(n).set_cable(false)?;
    cluster.node(n).hang_storage()?;
    let reset = is_reset(cluster, n, begin, Some(LEASE_AND_STOP + LATE))?;
    runs_elsewhere(cluster, n, reset)?;
    storage_returns(cluster, n)?;
    cluster.node_mut(n).set_cable(true)?;
    comes_back(cluster, n)
}

/// The node of the guest loses its network, and its storage answers with errors: the guest can be ended in order, so that nothing has to
/// be reset.
pub fn network_is_lost_and_storage_fails(cluster: &mut Cluster) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: n{n} loses its network, and its storage fails"));
    let begin = Instant::now();
    cluster.node_mut(n).set_cable(false)?;
    cluster.node_mut(n).lose_storage();
    let (to, at) = cluster.wait_for_guest_elsewhere(&others(n))?;
    say(&format!("{GUEST} runs on n{to} after {:.1} s", (at - begin).as_secs_f64()));
    ensure!(!cluster.has_guest(n), "{GUEST} runs on n{n} and n{to}");
    ensure!(cluster.node(n).told("WATCHDOG", begin).is_none(), "n{n} was reset without need");
    storage_returns(cluster, n)?;
    cluster.node_mut(n).set_cable(true)?;
    comes_back(cluster, n)
}

/// Only the LUN hangs: processes are in D state, and everybody else goes on.
pub fn storage_hangs(cluster: &mut Cluster) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: the LUN of n{n} hangs"));
    let begin = Instant::now();
    cluster.node(n).hang_storage()?;
    let reset = is_reset(cluster, n, begin, None)?;
    runs_elsewhere(cluster, n, reset)?;
    storage_returns(cluster, n)?;
    comes_back(cluster, n)
}

/// Another version of the package, with a guest running: neither guest nor lease notices.
pub fn agent_is_upgraded(cluster: &mut Cluster, package: &str) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: n{n} gets {package}"));
    let begin = Instant::now();
    let pid = format!("pgrep -f 'guest={GUEST}[,]'");
    let before = cluster.node(n).run(&pid)?;
    cluster.node(n).run(&format!("dpkg -i /seed/{package}"))?;
    cluster.wait_until_good()?;
    thread::sleep(LEASE_AND_STOP);
    cluster.wait_until_good()?;
    let after = cluster.node(n).run(&pid)?;
    ensure!(before == after, "{GUEST} was touched: process {before} became {after}");
    let reset = cluster.node(n).told("WATCHDOG", begin).or(cluster.node(n).told("RESET", begin));
    ensure!(reset.is_none(), "n{n} was reset by an upgrade");
    say(&format!("{GUEST} is still process {}, and n{n} was not reset", after.trim()));
    Ok(())
}

/// The package does not go while its agent guards a guest, and nothing has changed then.
pub fn removing_is_refused(cluster: &Cluster) -> Result<()> {
    let n = home(cluster)?;
    say(&format!("story: n{n} is to lose the package"));
    let refusal = cluster.node(n).try_run("dpkg -r steadfast")?;
    let expected = refusal.code != 0 && refusal.text.contains("not removed");
    ensure!(expected, "dpkg -r ended with {}: {}", refusal.code, refusal.text);
    let state =
        "systemctl is-active steadfastd && dpkg-query -W -f '${db:Status-Status}' steadfast";
    let state = cluster.node(n).run(state)?;
    ensure!(state.trim().ends_with("installed"), "it is {state}");
    cluster.wait_until_good()?;
    say("it is refused, and nothing has changed");
    Ok(())
}

/// Until the node is reset: by its watchdog, or by itself shortly before.
fn is_reset(cluster: &Cluster, n: u8, begin: Instant, bound: Option<Duration>) -> Result<Instant> {
    let end = begin + PATIENCE;
    loop {
        let machine = cluster.node(n);
        let watchdog = machine.told("WATCHDOG", begin);
        if let Some(at) = watchdog.or_else(|| machine.told("RESET", begin)) {
            let by = if watchdog.is_some() { "its watchdog" } else { "itself (sysrq)" };
            let took = at - begin;
            say(&format!("n{n} is reset by {by}, after {:.1} s", took.as_secs_f64()));
            if let Some(bound) = bound {
                ensure!(took <= bound, "n{n} was reset after {took:?}, the bound is {bound:?}");
                say(&format!("the bound is {:.1} s", LEASE_AND_STOP.as_secs_f64()));
            }
            return Ok(at);
        }
        for other in others(n) {
            ensure!(!cluster.has_guest(other), "{GUEST} runs on n{other}, and n{n} is not reset");
        }
        ensure!(Instant::now() < end, "n{n} is not reset");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Until the guest runs on another node; it has not before the reset.
fn runs_elsewhere(cluster: &Cluster, n: u8, reset: Instant) -> Result<()> {
    let (to, at) = cluster.wait_for_guest_elsewhere(&others(n))?;
    say(&format!("{GUEST} runs on n{to}, {:.1} s after the reset", (at - reset).as_secs_f64()));
    Ok(())
}

/// What was under way when the node was reset is lost, as with a real controller.
fn storage_returns(cluster: &mut Cluster, n: u8) -> Result<()> {
    cluster.node_mut(n).restore_storage()?;
    say(&format!("n{n} has its storage again"));
    Ok(())
}

/// By itself, as a member; the guest has run once all the while, and still does.
fn comes_back(cluster: &mut Cluster, n: u8) -> Result<()> {
    cluster.node(n).wait_until_up()?;
    say(&format!("n{n} has booted"));
    cluster.wait_until_good()?;
    let homes: Vec<u8> = (1..=NODES).filter(|n| cluster.has_guest(*n)).collect();
    ensure!(homes.len() == 1, "{GUEST} runs on {homes:?}");
    cluster.check_never_twice()?;
    say(&format!(
        "n{n} is a member again, {GUEST} runs on n{} alone, and never ran twice",
        homes[0]
    ));
    Ok(())
}
