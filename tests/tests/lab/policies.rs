//! Policies under a failover: replaced in the middle of a recovery, looping, and large.

use super::{ha_guests_on, lab};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::{api, wait};

/// The preset's deadline of a policy's answer.
const DEADLINE_MS: u64 = 250;
/// What other stories allow for a member's failover with a fence agent, before any policy is late.
const FAILOVER_MS: u64 = 8_000;
/// What the largest module of a policy may have, in bytes.
const LARGEST_MODULE: usize = 4 << 20;

/// A module of `tests/wat` for placement, under a name of its own, with more functions.
fn module(fixture: &str, functions: &str) -> Result<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wat");
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.wat")));
    let text = read("skeleton")?
        .replace("{{NAME}}", fixture)
        .replace("{{KINDS}}", "\\\"placement\\\"")
        .replace("{{EXPORTS}}", "(export \"steadfast_placement\")")
        .replace("{{FIXTURE}}", &(read(fixture)? + functions));
    Ok(wat::parse_str(text)?)
}

/// Drops a policy into the node's folder, as an operator should.
fn drop_policy(lab: &Lab, node: Node, bytes: &[u8]) -> Result<()> {
    let folder = lab.home(node).join("etc/steadfast/policies");
    fs::write(folder.join(".x.part"), bytes)?;
    fs::rename(folder.join(".x.part"), folder.join("x.wasm"))?;
    Ok(())
}

fn example(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/out").join(name);
    fs::read(&path).with_context(|| format!("{}: run policies/build", path.display()))
}

/// Name of the placement policy that decides on the node.
fn deciding(lab: &Lab, node: Node) -> Result<String> {
    let status = api::get(lab, node, "/v1/policies/placement")?;
    let policies = status["policies"].as_array().context("no policies")?;
    let found = policies.iter().find(|policy| policy["deciding"] == true);
    Ok(found.and_then(|policy| policy["name"].as_str()).unwrap_or_default().to_owned())
}

fn wait_until_decides(lab: &Lab, nodes: &[Node], name: &str) -> Result<Duration> {
    let begin = Instant::now();
    wait::until(&format!("{name} decides"), Duration::from_secs(60), || {
        let decides = |node: &Node| deciding(lab, *node).is_ok_and(|found| found == name);
        Ok(nodes.iter().all(decides).then_some(()))
    })?;
    Ok(begin.elapsed())
}

/// Who decided the newest placement that the node's agent recorded, and in how many microseconds.
fn last_decider(lab: &Lab, node: Node) -> Result<Option<(String, u64)>> {
    let decisions = api::get(lab, node, "/v1/decisions?limit=1000")?;
    let newest_first = decisions.as_array().context("no decisions")?.iter().rev();
    let placements = newest_first.filter(|it| it["kind"] == "decided");
    let decider = placements.filter_map(|it| it["reasons"].get("decider")).next();
    Ok(decider.map(|it| {
        let name = it["name"].as_str().unwrap_or_default().to_owned();
        (name, it["micros"].as_u64().unwrap_or(0))
    }))
}

#[test]
fn a_policy_replaced_in_the_middle_of_a_recovery_decides_from_the_next_one_on() -> Result<()> {
    let lab = lab("policy-replaced", Options::default())?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let before = deciding(&lab, leader)?;
    let (new, dropped) = (example("rack-aware.wasm")?, lab.clone());
    let events = api::Events::listen(&lab);
    // The recovery is under way as soon as the eviction is committed.
    let dropper = std::thread::spawn(move || -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let heard = events.next(Duration::from_millis(100));
            if heard.is_some_and(|heard| heard.event.kind == "evicted") {
                return drop_policy(&dropped, leader, &new);
            }
        }
        anyhow::bail!("no eviction was heard")
    });
    let failover = lab.failover(victim)?;
    dropper.join().map_err(|_| anyhow::anyhow!("the dropper ended early"))??;
    let decided = last_decider(&lab, leader)?.context("no placement was recorded")?;
    println!("policy-replaced: {} ms, decided by {decided:?}", failover.ms);
    ensure!(decided.0 == before, "{decided:?} decided, not {before}");
    wait_until_decides(&lab, &[leader], "rack-aware")?;
    lab.boot(victim)?;
    let leader = lab.wait_until_good()?;
    let next = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(next)?;
    let failover = lab.failover(next)?;
    let decided = last_decider(&lab, leader)?.context("no placement was recorded")?;
    println!("policy-replaced: the next {} ms, decided by {decided:?}", failover.ms);
    ensure!(decided.0 == "rack-aware", "{decided:?} decided, not the new one");
    lab.boot(next)?;
    lab.wait_until_good()?;
    lab.check_single()
}

#[test]
fn a_looping_policy_delays_no_recovery_by_more_than_its_deadline() -> Result<()> {
    let lab = lab("policy-loops", Options::default())?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    for name in ha_guests_on(&lab, victim) {
        lab.steadfast(victim, &["vm", "enable", &name, "--label", "wish=loop-now"])?;
    }
    let nodes: Vec<Node> = lab.nodes().collect();
    let looping = module("loops-on-a-label", "")?;
    nodes.iter().try_for_each(|node| drop_policy(&lab, *node, &looping))?;
    wait_until_decides(&lab, &nodes, "loops-on-a-label")?;
    lab.wait_until_good()?;
    let failover = lab.failover(victim)?;
    let (name, micros) = last_decider(&lab, leader)?.context("no placement was recorded")?;
    println!("policy-loops: {} ms, decided by {name} after {micros} us", failover.ms);
    ensure!(name != "loops-on-a-label", "it decided");
    ensure!(micros <= DEADLINE_MS * 1_000, "it took {micros} us until another decided");
    ensure!(failover.ms <= FAILOVER_MS + DEADLINE_MS, "the failover took {} ms", failover.ms);
    lab.boot(victim)?;
    lab.wait_until_good()?;
    lab.check_single()
}

/// So many functions that the module is nearly as large as allowed.
fn filler() -> String {
    let line =
        "(local.set 0 (i64.add (i64.mul (local.get 0) (i64.const 1234567)) (i64.const 76543)))";
    let function = format!("(func (param i64) (result i64) {} (local.get 0))\n", line.repeat(400));
    // A line takes 15 bytes.
    function.repeat((LARGEST_MODULE - (64 << 10)) / (400 * 15 + 16))
}

/// The longest time between two beats of late, of all nodes, beyond the configured one.
fn lateness(lab: &Lab) -> Result<u64> {
    let mut worst = 0;
    for node in lab.nodes() {
        let beats = api::get(lab, node, "/v1/status")?["beats"].clone();
        let ms = |name: &str| beats[name].as_u64().context("no beats in the status");
        worst = worst.max(ms("longest_gap_lately_ms")?.saturating_sub(ms("interval_ms")?));
    }
    Ok(worst)
}

#[test]
fn no_beat_is_late_while_the_largest_module_compiles_everywhere() -> Result<()> {
    let lab = lab("policy-large", Options::default())?;
    lab.wait_until_good()?;
    let large = module("good", &filler())?;
    ensure!(
        large.len() > LARGEST_MODULE * 9 / 10 && large.len() <= LARGEST_MODULE,
        "{}",
        large.len()
    );
    wait::sleep(Duration::from_secs(61))?;
    let quiet = lateness(&lab)?;
    let nodes: Vec<Node> = lab.nodes().collect();
    let watch = super::Watch::begin(&lab);
    nodes.iter().try_for_each(|node| drop_policy(&lab, *node, &large))?;
    let mut worst = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(300) {
        worst = worst.max(lateness(&lab)?);
        if nodes.iter().all(|node| deciding(&lab, *node).is_ok_and(|name| name == "good")) {
            break;
        }
        wait::sleep(Duration::from_millis(500))?;
    }
    let took = wait_until_decides(&lab, &nodes, "good")? + begin.elapsed();
    worst = worst.max(lateness(&lab)?);
    println!(
        "policy-large: {} bytes decide on {} nodes after {} ms; the worst beat was {worst} ms late, {quiet} ms before",
        large.len(),
        nodes.len(),
        took.as_millis()
    );
    ensure!(worst <= 100, "a beat was {worst} ms late");
    lab.check_single()?;
    watch.end()
}
