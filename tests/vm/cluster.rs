//! Three machines, from packages to a cluster that guards a guest.

use crate::machine::Machine;
use crate::{say, switch};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub const NODES: u8 = 3;
/// The guest under high availability. Its definition is nobody's secret: the lab's firmware on the shared disk.
pub const GUEST: &str = "web";
/// Long enough for anything that a failure may cost with these time-outs.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Slow machines: emulation on two cores that others use too.
const TIMING: [&str; 5] = [
    "lease_ms=15000",
    "stop_ms=12000",
    "watchdog_ms=10000",
    "full_failure_ms=9000",
    "storage_isolation_ms=40000",
];

#[derive(Debug)]
pub struct Cluster {
    pub machines: Vec<Machine>,
}

impl Cluster {
    /// The machines, booted, as Debian leaves them.
    pub fn boot(image: &Path, folder: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        for (name, bytes) in [("store", 4 << 30), ("web", 1 << 20)] {
            File::create(folder.join(format!("{name}.raw")))?.set_len(bytes)?;
        }
        switch::start(folder, NODES)?;
        let machines = (1..=NODES).map(|n| Machine::new(n, folder, image));
        let mut cluster = Self { machines: machines.collect::<Result<_>>()? };
        for machine in &mut cluster.machines {
            machine.power_on()?;
        }
        say("three machines are switched on");
        for machine in &cluster.machines {
            machine.wait_until_up()?;
        }
        say("three machines are up");
        Ok(cluster)
    }

    pub fn node(&self, n: u8) -> &Machine {
        &self.machines[usize::from(n) - 1]
    }

    pub fn node_mut(&mut self, n: u8) -> &mut Machine {
        &mut self.machines[usize::from(n) - 1]
    }

    /// All at once: each takes long.
    pub fn on_all(&self, script: &str) -> Result<()> {
        thread::scope(|scope| {
            let run = |machine| scope.spawn(move || Machine::run(machine, script).map(drop));
            let running: Vec<_> = self.machines.iter().map(run).collect();
            running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })
    }

    pub fn install_packages(&self) -> Result<()> {
        self.on_all("dpkg -i /seed/steadfast.deb && ! systemctl is-active steadfastd")?;
        say("the package is installed, nothing was started");
        Ok(())
    }

    /// As the guide has it: each machine is prepared, the first one begins the cluster, the others are invited and join.
    pub fn prepare_and_join(&self) -> Result<()> {
        self.on_all("steadfast node prepare --no-wait")?;
        say("three machines are prepared");
        let again = self.node(1).run("steadfast node prepare --no-wait --dry-run")?;
        say(&format!("prepared again, it would do: {}", again.trim().lines().last().unwrap_or("")));
        let timing: String = TIMING.iter().map(|timing| format!(" --timing {timing}")).collect();
        self.node(1).run(&format!(
            "steadfast cluster init vm --node n1=10.77.0.1 --device /dev/disk/by-id/virtio-store --preset calm \
             --token 3000{timing} --images /dev/disk/by-id --never-paused --watchdog /dev/watchdog"
        ))?;
        say("n1 has begun the cluster");
        for n in 2..=NODES {
            self.join(n)?;
        }
        let elected = self.node(1).run("steadfast cluster activate")?;
        say(&format!("activated:\n{elected}"));
        Ok(())
    }

    /// The ticket goes from one console to the other by hand.
    fn join(&self, n: u8) -> Result<()> {
        let invite = format!("n{n}=10.77.0.{n} --ticket-file /run/ticket");
        self.node(1).run(&format!(
            "rm -f /run/ticket; setsid steadfast cluster invite {invite} >/run/invite.log 2>&1 </dev/null &\n\
             for i in $(seq 60); do [ -s /run/ticket ] && break; sleep 1; done; cat /run/invite.log; test -s /run/ticket"
        ))?;
        let ticket = self.node(1).run("cat /run/ticket")?;
        self.node(n).run(&format!("steadfast cluster join {}", ticket.trim()))?;
        say(&format!("n{n} has joined"));
        Ok(())
    }

    /// By hand, as one could without those commands.
    pub fn configure(&self) -> Result<()> {
        let key = self
            .node(1)
            .run("corosync-keygen -l >/dev/null && base64 -w0 /etc/corosync/authkey")?;
        let list: String = (1..=NODES)
            .map(|n| format!("node {{\nname: n{n}\nnodeid: {n}\nring0_addr: 10.77.0.{n}\n}}\n"))
            .collect();
        let corosync = format!(
            "totem {{\nversion: 2\ncluster_name: vm\ntransport: knet\ncrypto_cipher: aes256\ncrypto_hash: sha256\n\
             token: 3000\ntoken_coefficient: 0\n}}\nnodelist {{\n{list}}}\nquorum {{\nprovider: \
             corosync_votequorum\n}}\nlogging {{\nto_syslog: yes\n}}\n"
        );
        let timing = TIMING.join("\n");
        let agent = format!(
            "[cluster]\nname = \"vm\"\npreset = \"calm\"\n[timing]\n{timing}\n[storage]\ndevice = \
             \"/dev/disk/by-id/virtio-store\"\nshared_paths = [\"/dev/disk/by-id\"]\n[watchdog]\ndevice = \"/dev/watchdog\"\n[run]\nnever_paused = true\n"
        );
        self.on_all(&format!(
            "set -e\necho {key} | base64 -d >/etc/corosync/authkey\nchmod 400 /etc/corosync/authkey\n\
             cat >/etc/corosync/corosync.conf <<'EOF'\n{corosync}EOF\n\
             cat >/etc/steadfast/steadfast.toml <<'EOF'\n{agent}EOF\n\
             steadfastd --check\nls /dev/watchdog\nsystemctl restart corosync"
        ))?;
        self.node(1).run(
            "steadfast storage init /dev/disk/by-id/virtio-store --cluster vm --node 1=n1 --node 2=n2 --node 3=n3",
        )?;
        self.on_all(
            "steadfast node install-hook && systemctl restart libvirtd && systemctl enable --now steadfastd",
        )?;
        say("corosync, the store and the agents are set up by hand");
        Ok(())
    }

    /// As `machine` sees it.
    pub fn status(&self, n: u8) -> Result<Value> {
        let text = self.node(n).run("steadfast --json status")?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Until every node is a member in the eyes of every node.
    pub fn wait_until_good(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let wrong = (1..=NODES).find_map(|n| self.what_is_wrong(n).err());
            let Some(wrong) = wrong else { return Ok(()) };
            ensure!(Instant::now() < end, "the cluster does not get into a good state: {wrong:#}");
            thread::sleep(Duration::from_secs(3));
        }
    }

    fn what_is_wrong(&self, n: u8) -> Result<()> {
        let status = self.status(n)?;
        ensure!(status["leader"].is_object(), "n{n} knows no leader");
        let nodes = status["nodes"].as_array().context("no nodes")?;
        for node in nodes {
            let (name, is) = (&node["name"], node["status"].as_str().unwrap_or_default());
            ensure!(["Leader", "Member"].contains(&is), "n{n} sees {name} as {is}: {node}");
        }
        Ok(())
    }

    /// Starts the guest on a node, and puts it under high availability.
    pub fn protect_guest(&self, n: u8) -> Result<()> {
        let xml = format!(
            "<domain type='qemu'><name>{GUEST}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type><loader type='rom'>/var/lib/libvirt/haguest.rom</loader></os>\
             <features><acpi/><apic/></features><on_poweroff>destroy</on_poweroff><devices>\
             <emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>\
             <source dev='/dev/disk/by-id/virtio-web'/><target dev='hda' bus='ide'/></disk>\
             <controller type='usb' model='none'/>\
             <serial type='file'><source path='/var/log/libvirt/qemu/{GUEST}.serial' append='on'/></serial>\
             <memballoon model='none'/></devices></domain>"
        );
        self.on_all("cp /seed/haguest.rom /var/lib/libvirt/haguest.rom")?;
        self.node(n).run(&format!(
            "echo \"{xml}\" >/tmp/web.xml && virsh -q define /tmp/web.xml && virsh -q start {GUEST}"
        ))?;
        say(&format!("{GUEST} runs on n{n}, without high availability"));
        self.node(n).run(&format!("steadfast vm enable {GUEST}"))?;
        self.wait_for_guest(n)?;
        say(&format!("{GUEST} is under high availability on n{n}"));
        Ok(())
    }

    /// The kernel's word, not ours: it has a process there.
    pub fn has_guest(&self, n: u8) -> bool {
        let found = self.node(n).try_run(&format!("pgrep -f 'guest={GUEST}[,]'"));
        found.is_ok_and(|found| found.code == 0)
    }

    /// Until its state is `running` there, by everybody's word.
    pub fn wait_for_guest(&self, n: u8) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let name = format!("n{n}");
        loop {
            let status = self.status(n)?;
            let vm = status["vms"].as_array().and_then(|vms| vms.first()).cloned();
            let vm = vm.unwrap_or_default();
            if vm["owner"]["name"] == name.as_str() && vm["state"] == "running" && self.has_guest(n)
            {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{GUEST} does not run on n{n}: {vm}");
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// The first node of these that the guest has a process on.
    pub fn wait_for_guest_elsewhere(&self, nodes: &[u8]) -> Result<(u8, Instant)> {
        let end = Instant::now() + PATIENCE;
        loop {
            for n in nodes {
                if self.has_guest(*n) {
                    return Ok((*n, Instant::now()));
                }
            }
            ensure!(Instant::now() < end, "{GUEST} does not start on {nodes:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The guest never found another's record on its disk, wherever it ran.
    pub fn check_never_twice(&self) -> Result<()> {
        for machine in &self.machines {
            let said = machine
                .run(&format!("cat /var/log/libvirt/qemu/{GUEST}.serial 2>/dev/null || true"))?;
            ensure!(!said.contains('X'), "{GUEST} ran twice: on {} it said {said}", machine.name());
        }
        Ok(())
    }
}

/// Where the image is, and a folder for what runs.
pub fn folders() -> (PathBuf, PathBuf) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm");
    (target.clone(), std::env::temp_dir().join("steadfast-vm"))
}
