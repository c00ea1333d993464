//! Stories on real parts: corosync, libvirt, QEMU, the agent and Wasm policies, in the lab's nodes. Truth is what the
//! kernel says of QEMU processes, looked at every few milliseconds, never our own API.
//!
//! `cargo test --release -p steadfast-tests --features lab --test lab -- --test-threads 1`, as root.

#[path = "lab/bounds.rs"]
mod bounds;
#[path = "lab/count.rs"]
mod count;
#[path = "lab/hook.rs"]
mod hook;
#[path = "lab/nodes.rs"]
mod nodes;
#[path = "lab/operators.rs"]
mod operators;
#[path = "lab/policies.rs"]
mod policies;
#[path = "lab/proactive.rs"]
mod proactive;
#[path = "lab/realtime.rs"]
mod realtime;
#[path = "lab/upgrade.rs"]
mod upgrade;
#[path = "lab/watch.rs"]
mod watch;

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use steadfast_lab::api;
use steadfast_lab::failover::Role;
use steadfast_lab::faultfs::Mode;
use steadfast_lab::faults::Cut;
use steadfast_lab::guard::Guard;
use steadfast_lab::lab::{Lab, Node, Options, Storage};
use steadfast_lab::power_log::{Cause, PowerCut};

/// L + S of the preset `standard`, in ms.
const LEASE_AND_STOP_MS: u64 = 10_000;

fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    test.ancestors().nth(2).expect("target/release/deps/lab").to_owned()
}

/// A lab with guests, all good; ends with the test.
fn lab(name: &str, options: Options) -> Result<Guard> {
    lab_of(programs(), name, options)
}

/// The same with programs of another build.
fn lab_of(built: PathBuf, name: &str, options: Options) -> Result<Guard> {
    let run = programs().join("lab-tests").join(name);
    std::fs::create_dir_all(&run)?;
    let policies = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/out"));
    let lab = Guard(Lab::new(&run, &built, Options { policies, ..options })?);
    lab.up()?;
    lab.create_guests()?;
    lab.wait_until_good()?;
    Ok(lab)
}

fn on_block_device() -> Options {
    Options { storage: Storage::Block, ..Options::default() }
}

fn without_fence_agent() -> Options {
    Options { fence_agent: false, ..Options::default() }
}

/// Looks at every QEMU process of the lab until it is dropped, and remembers guests that ran on two nodes at once.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn begin(lab: &Lab) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (end, out, lab): (_, Arc<Mutex<BTreeSet<String>>>, _) =
            (stop.clone(), Arc::clone(&seen), lab.clone());
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                out.lock().expect("watch").extend(twice(&lab));
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            ensure!(thread.join().is_ok(), "the watch ended early");
        }
        let seen = self.seen.lock().expect("watch");
        ensure!(seen.is_empty(), "guests ran on two nodes at once: {seen:?}");
        Ok(())
    }
}

fn twice(lab: &Lab) -> Vec<String> {
    let mut homes: BTreeMap<String, BTreeSet<Node>> = BTreeMap::new();
    for guest in lab.guests() {
        homes.entry(guest.name).or_default().insert(guest.node);
    }
    homes.into_iter().filter(|(_, nodes)| nodes.len() > 1).map(|(name, _)| name).collect()
}

/// Every guest's process, by name.
fn processes(lab: &Lab) -> BTreeMap<String, (Node, i32, u64)> {
    let of = |g: steadfast_lab::qemu::Guest| (g.name, (g.node, g.process.pid, g.process.started));
    lab.guests().into_iter().map(of).collect()
}

fn other_cuts(lab: &Lab, expected: Cause) -> Result<Vec<PowerCut>> {
    Ok(lab.power_cuts()?.into_iter().filter(|cut| cut.cause != expected).collect())
}

/// Nobody loses power, no guest's process changes, for `time`.
fn nothing_happens(lab: &Lab, time: Duration, fault: impl FnOnce() -> Result<()>) -> Result<()> {
    let (before, cuts) = (processes(lab), lab.power_cuts()?.len());
    fault()?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let now = processes(lab);
        ensure!(now == before, "guests changed: before {before:?}, now {now:?}");
        thread::sleep(Duration::from_millis(50));
    }
    let after = lab.power_cuts()?;
    ensure!(after.len() == cuts, "power was cut: {:?}", &after[cuts..]);
    Ok(())
}

/// Waits until `name` runs on another node than `victim`, and only there.
fn runs_elsewhere(lab: &Lab, name: &str, victim: Node, limit: Duration) -> Result<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let homes = lab.homes(name);
        if homes.len() == 1 && homes[0].node != victim {
            return Ok(begin.elapsed());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("{name} does not run elsewhere after {limit:?}: {:?}", lab.homes(name))
}

fn failover(name: &str, role: Role, options: Options, limit_ms: u64) -> Result<()> {
    let lab = lab(name, options)?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(role, leader);
    lab.ensure_guest_on(victim)?;
    let bystander = lab.bystander().context("the guest without HA runs")?;
    let watch = Watch::begin(&lab);
    let failover = lab.failover(victim)?;
    println!("{name}: {} ms, {:?}", failover.ms, failover.milestones);
    ensure!(failover.ms <= limit_ms, "took {} ms, limit {limit_ms} ms", failover.ms);
    lab.check_single()?;
    lab.check_bystander(&bystander, bystander.node == victim)?;
    watch.end()?;
    if role == Role::Leader {
        survivors_explain(&lab, victim)?;
    }
    // It comes back, and takes nothing that is not its own.
    lab.boot(victim)?;
    lab.wait_until_good()?;
    lab.check_single()
}

/// Every survivor tells what the dead leader had decided, too, and replays what it decided itself.
fn survivors_explain(lab: &Lab, dead: Node) -> Result<()> {
    let (name, folder) = (dead.to_string(), "/etc/steadfast/policies");
    let modules = ["node-priority", "placement", "risk"].map(|it| format!("{folder}/{it}.wasm"));
    let replay = ["policy", "replay"].into_iter().chain(modules.iter().map(String::as_str));
    let replay: Vec<&str> = replay.collect();
    for node in lab.nodes().filter(|node| *node != dead) {
        let told = lab.steadfast(node, &["explain", &name])?;
        ensure!(told.contains("is evicted"), "{node} does not tell of its end:\n{told}");
        let by_it = format!("recorded by {name}");
        ensure!(told.contains(&by_it), "{node} tells nothing that it decided:\n{told}");
        let told = lab.steadfast(node, &replay)?;
        println!("{node}: {}", told.lines().last().unwrap_or_default());
        ensure!(told.contains("the same bytes, the same fuel"), "not replayed:\n{told}");
    }
    Ok(())
}

#[test]
fn a_killed_members_guests_run_again_elsewhere() -> Result<()> {
    failover("member", Role::Member, Options::default(), 6_000)
}

#[test]
fn a_killed_leaders_guests_run_again_elsewhere() -> Result<()> {
    failover("leader", Role::Leader, Options::default(), 6_000)
}

#[test]
fn without_a_fence_agent_time_proves_a_dead_node() -> Result<()> {
    failover("time", Role::Member, without_fence_agent(), LEASE_AND_STOP_MS + 4_000)
}

#[test]
fn a_node_cut_off_the_network_stops_its_guests_by_itself_and_they_run_elsewhere() -> Result<()> {
    let lab = lab("network", Options::default())?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let moved = ha_guests_on(&lab, victim);
    let watch = Watch::begin(&lab);
    lab.cut(victim, Cut::Network, Mode::Ok)?;
    for name in &moved {
        let took = runs_elsewhere(&lab, name, victim, Duration::from_secs(45))?;
        println!("network: {name} after {} ms", took.as_millis());
    }
    ensure!(lab.power_cuts()?.is_empty(), "power was cut: {:?}", lab.power_cuts()?);
    lab.heal(victim)?;
    lab.wait_until_good()?;
    lab.check_single()?;
    watch.end()
}

fn ha_guests_on(lab: &Lab, node: Node) -> Vec<String> {
    let ha = lab.ha_guests();
    let mine = lab.guests().into_iter().filter(|guest| guest.node == node);
    mine.map(|guest| guest.name).filter(|name| ha.contains(name)).collect()
}

/// Everything that a node has on the shared storage hangs, its pages too.
fn storage_hangs_for_one(name: &str, options: Options) -> Result<()> {
    let lab = lab(name, options)?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let moved = ha_guests_on(&lab, victim);
    let watch = Watch::begin(&lab);
    lab.cut(victim, Cut::Storage, Mode::Hang)?;
    let took = shows(&lab, leader, victim, "Storage isolation", Duration::from_secs(30))?;
    println!("{name}: storage isolation shown after {} ms", took.as_millis());
    for name in &moved {
        let took = runs_elsewhere(&lab, name, victim, Duration::from_secs(60))?;
        println!("storage: {name} after {} ms", took.as_millis());
    }
    lab.check_single()?;
    watch.end()
}

/// Waits until `node` shows this status of `other`.
fn shows(lab: &Lab, node: Node, other: Node, status: &str, limit: Duration) -> Result<Duration> {
    let (begin, mut last) = (Instant::now(), String::new());
    while begin.elapsed() < limit {
        let report = api::status(lab, node)?;
        let found = report.nodes.into_iter().find(|shown| shown.name == other.to_string());
        last = found.map(|shown| shown.status).unwrap_or_default();
        if last == status {
            return Ok(begin.elapsed());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("{node} shows {other} as {last}, expected {status}")
}

#[test]
fn a_node_cut_off_the_storage_loses_its_guests_to_others_once() -> Result<()> {
    storage_hangs_for_one("storage", Options::default())
}

#[test]
fn a_failover_works_on_a_raw_shared_block_device() -> Result<()> {
    failover("block", Role::Member, on_block_device(), 6_000)
}

#[test]
fn a_hung_block_device_isolates_its_node_as_a_hung_directory_does() -> Result<()> {
    storage_hangs_for_one("block-hangs", on_block_device())
}

/// A channel is lost by everybody for 30 s, then comes back.
fn outage_for_all(name: &str, what: Cut) -> Result<()> {
    let lab = lab(name, Options::default())?;
    nothing_happens(&lab, Duration::from_secs(30), || {
        lab.nodes().try_for_each(|node| lab.cut(node, what, Mode::Hang))
    })?;
    nothing_happens(&lab, Duration::from_secs(20), || {
        lab.nodes().try_for_each(|node| lab.heal(node))
    })?;
    lab.wait_until_good()?;
    lab.check_single()
}

#[test]
fn storage_lost_by_everybody_for_30_s_stops_nothing() -> Result<()> {
    outage_for_all("storage-for-all", Cut::Storage)
}

#[test]
fn network_lost_by_everybody_for_30_s_stops_nothing() -> Result<()> {
    outage_for_all("network-for-all", Cut::Network)
}

#[test]
fn a_leader_stalled_for_2_s_changes_nothing() -> Result<()> {
    let lab = lab("stall-2", without_fence_agent())?;
    let leader = lab.wait_until_good()?;
    nothing_happens(&lab, Duration::from_secs(15), || lab.stall(leader, Duration::from_secs(2)))?;
    lab.wait_until_good()?;
    lab.check_single()
}

#[test]
fn a_leader_stalled_for_20_s_is_cut_by_its_watchdog_and_its_guests_run_elsewhere_once() -> Result<()>
{
    let lab = lab("stall-20", without_fence_agent())?;
    let leader = lab.wait_until_good()?;
    lab.ensure_guest_on(leader)?;
    let moved = ha_guests_on(&lab, leader);
    let watch = Watch::begin(&lab);
    let begin = wall_ms();
    let stalled = lab.freeze(leader);
    for name in &moved {
        runs_elsewhere(&lab, name, leader, Duration::from_secs(20))?;
    }
    let cuts = lab.power_cuts()?;
    let cut = cuts.iter().find(|cut| cut.node == leader).context("its power was not cut")?;
    let after = cut.wall_ms.saturating_sub(begin);
    println!("stall-20: power cut by {:?} after {after} ms", cut.cause);
    ensure!(cut.cause == Cause::Watchdog, "cut by {:?}", cut.cause);
    ensure!(after <= LEASE_AND_STOP_MS, "cut after {after} ms");
    ensure!(other_cuts(&lab, Cause::Watchdog)?.is_empty(), "others lost power too");
    thread::sleep(Duration::from_millis(20_000u64.saturating_sub(wall_ms() - begin)));
    lab.thaw(&stalled);
    lab.boot(leader)?;
    lab.wait_until_good()?;
    lab.check_single()?;
    watch.end()
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0))
}

#[test]
fn an_agent_killed_and_restarted_leaves_its_guests_running() -> Result<()> {
    let lab = lab("agent", Options::default())?;
    let leader = lab.wait_until_good()?;
    for node in [leader, lab.victim(Role::Member, leader)] {
        nothing_happens(&lab, Duration::from_secs(15), || {
            lab.kill_agent(node)?;
            thread::sleep(Duration::from_millis(500));
            lab.start_agent(node)
        })?;
        lab.wait_until_good()?;
    }
    lab.check_single()
}

#[test]
fn a_policy_dropped_in_the_folder_decides_the_next_placement() -> Result<()> {
    let lab = lab("policy", Options::default())?;
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/out/rack-aware.wasm");
    for node in lab.nodes() {
        let folder = lab.home(node).join("etc/steadfast/policies");
        std::fs::copy(&module, folder.join("rack-aware.wasm")).context("drop the policy")?;
    }
    thread::sleep(Duration::from_secs(3));
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let name = ha_guests_on(&lab, victim).pop().context("the victim has a guest")?;
    lab.failover(victim)?;
    let told = lab.steadfast(leader, &["explain", &name])?;
    ensure!(told.contains("rack-aware"), "explain does not name the policy:\n{told}");
    Ok(())
}

#[test]
fn a_guest_with_a_local_disk_is_refused_with_the_reason() -> Result<()> {
    let lab = lab("local-disk", Options::default())?;
    let node = Node(1);
    let xml = lab.exec(node, "virsh", &["dumpxml", "scratch"])?;
    let local = xml.replace("/mnt/shared/disks", "/var/lib/libvirt/images");
    ensure!(xml != local, "the guest's disk is not where this test expects it:\n{xml}");
    let local = local.replace("scratch", "local");
    let renamed: String = without_uuid(&local);
    let path = lab.home(node).join("var/log/local.xml");
    std::fs::write(&path, renamed)?;
    lab.exec(node, "virsh", &["define", "/var/log/local.xml"])?;
    let refusal = lab.steadfast(node, &["vm", "enable", "local"]);
    let told = format!("{:#}", refusal.err().context("it was accepted")?);
    ensure!(told.contains("shared"), "the reason is missing: {told}");
    lab.check_single()
}

fn without_uuid(xml: &str) -> String {
    xml.lines().filter(|line| !line.contains("<uuid>")).collect::<Vec<_>>().join("\n")
}

#[test]
fn broken_parts_are_told_with_a_remedy_and_stop_nothing_else() -> Result<()> {
    let lab = lab("broken", Options::default())?;
    let (sick, folder) = (Node(3), "etc/steadfast/policies/broken.wasm");
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/out/rack-aware.wasm");
    let half = std::fs::read(&module)?;
    nothing_happens(&lab, Duration::from_secs(12), || {
        std::fs::write(lab.home(sick).join(folder), &half[..half.len() / 2])?;
        lab.exec(sick, "sh", &["-c", "kill -9 $(pidof libvirtd) $(pidof corosync)"])?;
        Ok(())
    })?;
    let policies = lab.steadfast(sick, &["policy", "list"])?;
    ensure!(policies.contains("broken.wasm"), "the broken module is not listed:\n{policies}");
    let log = std::fs::read_to_string(lab.log(sick, "steadfastd.log"))?;
    for (part, remedy) in [("corosync", "systemctl"), ("libvirt", "start libvirtd")] {
        let told = log.lines().any(|line| line.contains(part) && line.contains(remedy));
        ensure!(told, "the log does not say what to do about {part}:\n{log}");
    }
    ensure!(!log.contains("panicked"), "the agent panicked:\n{log}");
    lab.check_single()
}
