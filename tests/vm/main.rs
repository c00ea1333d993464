//! Whole machines: a kernel, systemd, a watchdog and a shared LUN each, installed from our packages. See README.md; `tests/vm/run` does all of it.

mod cluster;
mod machine;
mod stories;
mod switch;
mod wire;

use anyhow::Result;
use cluster::{Cluster, NODES};
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Instant;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A line, with the seconds since the beginning.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{:7.1} s  {what}", BEGIN.elapsed().as_secs_f64());
}

#[test]
fn three_machines_from_packages_to_every_kind_of_failure() -> Result<()> {
    say("begin");
    let (image, folder) = cluster::folders();
    let mut cluster = Cluster::boot(&image, &folder)?;
    let outcome = all(&mut cluster);
    if outcome.is_err() {
        what_they_say(&cluster);
    }
    outcome
}

fn all(cluster: &mut Cluster) -> Result<()> {
    cluster.install_packages()?;
    if std::env::var_os("STEADFAST_VM_BY_HAND").is_some() {
        cluster.configure()?;
    } else {
        cluster.prepare_and_join()?;
    }
    cluster.wait_until_good()?;
    say("all three are members");
    cluster.protect_guest(2)?;
    stories::network_and_storage_are_lost(cluster)?;
    stories::storage_hangs(cluster)?;
    stories::network_is_lost_and_storage_fails(cluster)?;
    stories::removing_is_refused(cluster)?;
    stories::agent_is_upgraded(cluster, "upgrade.deb")?;
    stories::power_is_cut(cluster)
}

/// For whoever looks for the reason.
fn what_they_say(cluster: &Cluster) {
    let ask = "steadfast status; steadfast doctor; systemctl --failed --no-legend; \
               journalctl -b -n 60 --no-pager -u steadfastd -u corosync -u libvirtd";
    for n in 1..=NODES {
        let said = cluster.node(n).try_run(ask);
        let said = said.map_or_else(|error| format!("{error:#}"), |output| output.text);
        say(&format!("n{n}:\n{said}"));
    }
}
