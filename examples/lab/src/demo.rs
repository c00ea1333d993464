//! The demonstration: a member dies, then the leader; every HA guest must survive both, once.

use anyhow::Result;

use crate::failover::{Failover, Role};
use crate::lab::{Lab, Node};
use crate::measure;
use crate::qemu::Guest;

/// On a lab that is up and has its guests.
pub fn run(lab: &Lab) -> Result<()> {
    let leader = lab.wait_until_good()?;
    println!("\nall nodes are in good state, {leader} leads\n");
    let bystander = lab.bystander();
    let mut dead: Vec<Node> = Vec::new();
    let mut results: Vec<(Role, Failover)> = Vec::new();
    for role in [Role::Member, Role::Leader] {
        println!("the {} dies:", role.name());
        let result = measure::one(lab, role, std::time::Duration::ZERO)?;
        println!("  {} is back, everything is in good state\n", result.victim);
        dead.push(result.victim);
        results.push((role, result));
    }
    verify(lab, bystander.as_ref(), &dead)?;
    let columns: Vec<_> =
        results.iter().map(|(role, result)| (role.name().to_owned(), result)).collect();
    println!("\n{}", measure::table(&columns));
    for (role, result) in &results {
        println!("failover {}: {} ms", role.name(), result.ms);
    }
    Ok(())
}

/// By QEMU processes alone: neither our own API nor libvirt has a say here.
fn verify(lab: &Lab, bystander: Option<&Guest>, dead: &[Node]) -> Result<()> {
    println!("by QEMU processes:");
    lab.check_single()?;
    for name in lab.ha_guests() {
        for guest in lab.homes(&name) {
            println!("  {name} runs once, on {} (pid {})", guest.node, guest.process.pid);
        }
    }
    if let Some(guest) = bystander {
        println!("  {}", lab.check_bystander(guest, dead.contains(&guest.node))?);
    }
    Ok(())
}
