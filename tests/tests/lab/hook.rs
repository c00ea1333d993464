//! libvirt's hook: no tool starts an HA VM behind the agents' backs.

use super::{Watch, ha_guests_on, lab, without_fence_agent};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use steadfast_lab::lab::{Lab, Node, Options};

/// What `virsh start` says of a VM that must not start here.
fn refusal(lab: &Lab, node: Node, name: &str) -> Result<String> {
    let xml = lab.run.join(format!("guest/{name}.xml"));
    lab.exec(node, "virsh", &["--quiet", "define", &xml.to_string_lossy()])?;
    let started = lab.exec(node, "virsh", &["start", name]);
    let told = format!("{:#}", started.err().with_context(|| format!("{name} started on {node}"))?);
    ensure!(lab.homes(name).len() == 1, "{name} has another process: {:?}", lab.homes(name));
    Ok(told)
}

#[test]
fn libvirt_starts_an_ha_vm_nowhere_but_at_home_and_others_anywhere() -> Result<()> {
    // An agent that is down for seconds is a dead node to the others: with this preset they wait for longer.
    let lab = lab("hook", Options { preset: "calm".into(), ..without_fence_agent() })?;
    let leader = lab.wait_until_good()?;
    let other = lab.nodes().find(|node| *node != leader).context("another node")?;
    let home = lab.nodes().find(|node| *node != other).context("a home")?;
    lab.ensure_guest_on(home)?;
    let name = ha_guests_on(&lab, home).pop().context("a guest")?;
    let watch = Watch::begin(&lab);
    for node in lab.nodes() {
        let status = lab.steadfast(node, &["status"])?;
        ensure!(!status.contains("WARNING"), "{node} is not content with its hook:\n{status}");
    }
    let told = refusal(&lab, other, &name)?;
    ensure!(told.contains(&format!("belongs to {home}")), "the reason is missing: {told}");
    lab.add_vm("plain", other)?;
    lab.exec(other, "virsh", &["destroy", "plain"])?;
    // Its watchdog counts: both starts are quick, then the agent is back.
    lab.kill_agent(other)?;
    let begin = Instant::now();
    let told = refusal(&lab, other, &name);
    let started = lab.exec(other, "virsh", &["start", "plain"]);
    lab.start_agent(other)?;
    println!("hook: both answers without an agent after {} ms", begin.elapsed().as_millis());
    let told = told?;
    ensure!(told.contains("steadfastd does not answer"), "the reason is missing: {told}");
    started.context("a VM without HA did not start without an agent")?;
    lab.wait_until_good()?;
    lab.check_single()?;
    watch.end()
}

#[test]
fn a_libvirt_that_does_not_ask_is_told_with_the_remedy() -> Result<()> {
    let lab = lab("no-hook", Options::default())?;
    let node = Node(2);
    lab.steadfast(node, &["node", "remove-hook"])?;
    restart_libvirtd(&lab, node)?;
    warned(&lab, node, Some("steadfast node install-hook"))?;
    let etc = lab.program("steadfast").to_string_lossy().into_owned();
    lab.steadfast(node, &["node", "install-hook", "--program", &etc])?;
    restart_libvirtd(&lab, node)?;
    warned(&lab, node, None)?;
    lab.wait_until_good()?;
    lab.check_single()
}

fn restart_libvirtd(lab: &Lab, node: Node) -> Result<()> {
    lab.exec(node, "sh", &["-c", "kill -9 $(pidof libvirtd); sleep 0.2"])?;
    lab.start(node, "libvirtd", "libvirtd", &["--listen"])
}

/// Waits until the status has a warning with these words, or none.
fn warned(lab: &Lab, node: Node, words: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        let status = lab.steadfast(node, &["status"])?;
        let warning = status.lines().find(|line| line.contains("WARNING"));
        match (warning, words) {
            (Some(warning), Some(words)) if warning.contains(words) => return Ok(()),
            (None, None) => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    bail!("{node} does not warn as expected: {}", lab.steadfast(node, &["status"])?)
}
