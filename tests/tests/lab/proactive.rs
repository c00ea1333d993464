//! Proactive HA: equipment that announces a failure, in files of a kernel and through the API, and a policy that lies.

use super::count::Counts;
use super::operators::{everybody_says, runs_on, starts};
use super::{ha_guests_on, lab, nothing_happens, runs_elsewhere};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::{api, wait};

/// As in `operators.rs`: a guest counts once a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(2_500);
/// Where the nodes' agents look for the kernel's files; below each node's own `/etc`.
const ROOT: &str = "etc/steadfast/equipment";
const UNCORRECTED: &str = "sys/devices/system/edac/mc/mc0/ue_count";
/// Quick, so that a story takes no hours.
const PROACTIVE: &str = r#"
[proactive]
mode = "drain"
readings = 2
well_after_ms = 5000

[telemetry]
root = "/etc/steadfast/equipment"
interval_ms = 1000
tool_interval_ms = 2000
timeout_ms = 1000
"#;

fn options() -> Options {
    Options { configuration: PROACTIVE.into(), ..Options::default() }
}

/// Memory errors that nothing corrected, as the kernel tells them.
fn memory_errors(lab: &Lab, node: Node, count: u32) -> Result<()> {
    let file = lab.home(node).join(ROOT).join(UNCORRECTED);
    std::fs::create_dir_all(file.parent().context("a folder")?)?;
    std::fs::write(&file, format!("{count}\n")).context("cannot write the counter")
}

/// What proactive HA does with each node, by one agent's word.
fn holds(status: &api::Status) -> Vec<(String, String)> {
    let hold = |node: &api::NodeStatus| {
        let hold = node.risk.as_ref()?.hold.as_ref()?;
        Some((node.name.clone(), hold.level.clone()))
    };
    status.nodes.iter().filter_map(hold).collect()
}

#[test]
fn a_node_whose_memory_fails_is_drained_live_before_it_dies() -> Result<()> {
    let lab = lab("proactive", options())?;
    let leader = lab.wait_until_good()?;
    let node = lab.victim(Role::Member, leader);
    lab.nodes().try_for_each(|each| memory_errors(&lab, each, 0))?;
    lab.ensure_guest_on(node)?;
    let moved = ha_guests_on(&lab, node);
    let (drain, all) = (Counts::begin(&lab, &moved), Counts::begin(&lab, &lab.ha_guests()));
    let before: Vec<usize> = lab.ha_guests().iter().map(|name| starts(&lab, name)).collect();
    let begin = Instant::now();
    memory_errors(&lab, node, 3)?;
    for name in &moved {
        runs_elsewhere(&lab, name, node, Duration::from_secs(60))?;
        println!("proactive: {name} left {} ms after the first error", begin.elapsed().as_millis());
    }
    let drained = [(node.to_string(), "drain".to_string())];
    everybody_says(&lab, "drained", |status| holds(status) == drained)?;
    // A process on the target is a copy until the ledger says that it is the VM.
    everybody_says(&lab, "empty", |status| {
        let name = node.to_string();
        let is_away = |vm: &api::VmStatus| {
            let owner = vm.owner.as_ref().map(|owner| owner.name.as_str());
            owner != Some(name.as_str()) && vm.state == "running"
        };
        status.vms.iter().all(is_away)
    })?;
    let pause = drain.end()?;
    println!("proactive: longest pause of a guest on its way {} ms", pause.as_millis());
    ensure!(pause <= LONGEST_PAUSE, "a guest paused for {pause:?}");
    let told = lab.steadfast(leader, &["explain", &node.to_string()])?;
    ensure!(told.contains("uncorrectable memory errors"), "it is not explained: {told}");
    ensure!(told.contains("needs repair"), "nobody is asked for repair: {told}");
    let shown = lab.steadfast(node, &["node", "telemetry"])?;
    ensure!(shown.contains("edac.mc0.uncorrectable"), "it is not shown: {shown}");
    lab.kill(node)?;
    std::thread::sleep(Duration::from_secs(20));
    // Whoever counts on without a gap, and was not started anew, has not noticed.
    let pause = all.end()?;
    println!("proactive: longest pause of any guest, with the death {} ms", pause.as_millis());
    let after: Vec<usize> = lab.ha_guests().iter().map(|name| starts(&lab, name)).collect();
    if before != after {
        let told =
            lab.ha_guests().into_iter().map(|name| lab.steadfast(leader, &["explain", &name]));
        let told = told.collect::<Result<Vec<_>>>()?.join("\n");
        bail!("guests were started anew: {before:?}, then {after:?}\n{told}");
    }
    ensure!(lab.homes("db").len() == 1 && lab.homes("web").len() == 1, "a guest is lost");
    lab.check_single()
}

#[test]
fn another_systems_verdict_drains_a_node_until_it_is_withdrawn() -> Result<()> {
    let lab = lab("verdict", options())?;
    let leader = lab.wait_until_good()?;
    let node = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(node)?;
    let moved = ha_guests_on(&lab, node);
    let path = format!("/v1/nodes/{node}/risk");
    let verdict =
        r#"{"source":"dcim","ttl_ms":600000,"score":950,"reason":"PSU 1 predicts its end"}"#;
    ensure!(curl(&lab, leader, &path, &["-d", verdict])?.contains("its agent's socket"));
    ensure!(curl(&lab, node, &path, &["-d", verdict])?.contains("\"readings\":1"));
    for name in &moved {
        let took = runs_elsewhere(&lab, name, node, Duration::from_secs(60))?;
        println!("verdict: {name} left after {} ms", took.as_millis());
    }
    ensure!(curl(&lab, node, &format!("{path}?source=dcim"), &["-X", "DELETE"])?.contains(":1"));
    for name in &moved {
        let took = runs_on(&lab, name, node, Duration::from_secs(90))?;
        println!("verdict: {name} returned after {} ms", took.as_millis());
    }
    everybody_says(&lab, "trusted", |status| holds(status).is_empty())?;
    ensure!(lab.power_cuts()?.is_empty(), "power was cut: {:?}", lab.power_cuts()?);
    lab.check_single()
}

fn curl(lab: &Lab, node: Node, path: &str, arguments: &[&str]) -> Result<String> {
    let url = format!("http://steadfast{path}");
    let socket = ["--silent", "--unix-socket", "/run/steadfast/api.sock", &url];
    lab.exec(node, "curl", &[&socket[..], arguments].concat())
}

#[test]
fn a_risk_policy_that_lies_about_all_nodes_gets_one_drained() -> Result<()> {
    let lab = lab("lies", options())?;
    lab.wait_until_good()?;
    let text = include_str!("../../wat/lying-risk.wat");
    let module = wat::parse_str(text).context("the module is no module")?;
    for node in lab.nodes() {
        let folder = lab.home(node).join("etc/steadfast/policies");
        std::fs::write(folder.join("risk.wasm"), &module)?;
    }
    let first = wait::until("a drained node", Duration::from_secs(60), || {
        let states: Vec<_> = lab.nodes().filter_map(|node| api::status(&lab, node).ok()).collect();
        let mut held = states.iter().flat_map(holds);
        Ok(held.find(|(_, level)| level == "drain"))
    })?;
    let node: Node = first.0.parse().map_err(anyhow::Error::msg)?;
    wait::until("empty", Duration::from_secs(60), || {
        Ok(ha_guests_on(&lab, node).is_empty().then_some(()))
    })?;
    println!("lies: {node} is drained");
    nothing_happens(&lab, Duration::from_secs(20), || Ok(()))?;
    everybody_says(&lab, "one drained", |status| holds(status) == [first.clone()])?;
    ensure!(lab.power_cuts()?.is_empty(), "power was cut: {:?}", lab.power_cuts()?);
    lab.check_single()
}
