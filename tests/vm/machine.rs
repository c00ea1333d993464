//! One machine: a QEMU process with a kernel, a disk, a watchdog and a cable of its own, and its path to the shared LUN, which
//! is a process of its own too, so that it can hang.

use crate::switch;
use crate::wire::{GuestAgent, Monitor, Output, within};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Memory of a machine, in MiB.
const MEMORY: u32 = 704;
/// Longest boot until the agent in the machine answers: emulation on a busy host.
const BOOT: Duration = Duration::from_secs(600);
/// Longest command, where nothing else is said.
const COMMAND: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Machine {
    pub n: u8,
    folder: PathBuf,
    qemu: Option<Child>,
    path: Option<Child>,
    monitor: Option<Monitor>,
    cable: bool,
}

impl Machine {
    /// A new one, from the image in `image`, off. The shared LUNs are in `folder`.
    pub fn new(n: u8, folder: &Path, image: &Path) -> Result<Self> {
        let machine =
            Self { n, folder: folder.into(), qemu: None, path: None, monitor: None, cable: true };
        let base = image.join("base.qcow2");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base.canonicalize()?);
        let made = create.arg(machine.own("disk.qcow2")).status().context("no qemu-img")?;
        ensure!(made.success(), "qemu-img: {made}");
        for file in ["vmlinuz", "initrd.img", "seed.raw"] {
            let link = machine.folder.join(file);
            if !link.exists() {
                std::os::unix::fs::symlink(image.join(file).canonicalize()?, link)?;
            }
        }
        Ok(machine)
    }

    pub fn name(&self) -> String {
        format!("n{}", self.n)
    }

    fn own(&self, what: &str) -> PathBuf {
        self.folder.join(format!("n{}-{what}", self.n))
    }

    /// Everything that the machine said on its console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.own("console")).unwrap_or_default()).into()
    }

    /// Switches it on; it boots by itself.
    pub fn power_on(&mut self) -> Result<()> {
        if self.path.is_none() {
            self.restore_storage()?;
        }
        for socket in ["monitor", "agent"] {
            let _ = std::fs::remove_file(self.own(socket));
        }
        let _ = std::fs::remove_file(switch::card(&self.folder, self.n));
        let log = File::create(self.own("qemu.log"))?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.qemu = Some(command.spawn().context("cannot start QEMU")?);
        let monitor = Monitor::connect(&self.own("monitor"));
        self.monitor =
            Some(monitor.with_context(|| {
                std::fs::read_to_string(self.own("qemu.log")).unwrap_or_default()
            })?);
        if !self.cable {
            self.set_cable(false)?;
        }
        Ok(())
    }

    fn command(&self) -> Command {
        // It ends with us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        let n = self.n;
        let show = |path: PathBuf| path.display().to_string();
        let lun = |name: &str| {
            let socket = show(self.own("luns"));
            format!(
                "driver=nbd,node-name={name},server.type=unix,server.path={socket},export={name}"
            )
        };
        let (card, port) = (switch::card(&self.folder, n), switch::port(&self.folder, n));
        let (card, port) = (show(card), show(port));
        let append = format!(
            "root=/dev/vda rw console=ttyS0 net.ifnames=0 steadfast.node={n} systemd.show_status=0 quiet"
        );
        let arguments = [
            ("-name", format!("n{n}")),
            ("-uuid", format!("5eadfa57-0000-4000-8000-00000000000{n}")),
            ("-machine", "pc".into()),
            ("-accel", "tcg".into()),
            ("-cpu", "max".into()),
            ("-smp", "1".into()),
            ("-m", MEMORY.to_string()),
            ("-display", "none".into()),
            ("-chardev", format!("file,id=console,append=on,path={}", show(self.own("console")))),
            ("-serial", "chardev:console".into()),
            ("-kernel", show(self.folder.join("vmlinuz"))),
            ("-initrd", show(self.folder.join("initrd.img"))),
            ("-append", append),
            ("-qmp", format!("unix:{},server=on,wait=off", show(self.own("monitor")))),
            (
                "-drive",
                format!("file={},if=none,id=disk,cache=unsafe", show(self.own("disk.qcow2"))),
            ),
            ("-device", "virtio-blk-pci,drive=disk".into()),
            (
                "-drive",
                format!(
                    "file={},if=none,id=seed,format=raw,read-only=on",
                    show(self.folder.join("seed.raw"))
                ),
            ),
            ("-device", "virtio-blk-pci,drive=seed,serial=seed".into()),
            ("-blockdev", lun("store")),
            ("-device", "virtio-blk-pci,drive=store,serial=store,share-rw=on".into()),
            ("-blockdev", lun("web")),
            ("-device", "virtio-blk-pci,drive=web,serial=web,share-rw=on".into()),
            (
                "-netdev",
                format!(
                    "dgram,id=net,local.type=unix,local.path={card},remote.type=unix,remote.path={port}"
                ),
            ),
            ("-device", format!("virtio-net-pci,id=card,netdev=net,mac=52:54:00:00:00:0{n}")),
            (
                "-chardev",
                format!("socket,id=agent,path={},server=on,wait=off", show(self.own("agent"))),
            ),
            ("-device", "virtio-serial".into()),
            ("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0".into()),
            ("-device", "virtio-rng-pci".into()),
            ("-device", "i6300esb".into()),
            ("-action", "watchdog=reset".into()),
        ];
        command.args(["-nodefaults", "-no-user-config"]);
        for (key, value) in arguments {
            command.args([key.to_owned(), value]);
        }
        command
    }

    /// Pulls the plug.
    pub fn power_off(&mut self) {
        self.monitor = None;
        end(&mut self.qemu);
    }

    /// Plugs the network cable in, or out.
    pub fn set_cable(&mut self, plugged: bool) -> Result<()> {
        self.cable = plugged;
        self.monitor()?.ask("set_link", &json!({ "name": "card", "up": plugged })).map(drop)
    }

    /// From now on every request to the shared LUNs hangs.
    pub fn hang_storage(&self) -> Result<()> {
        let path = self.path.as_ref().context("no path to the storage")?;
        let stopped = Command::new("kill").args(["-STOP", &path.id().to_string()]).status()?;
        ensure!(stopped.success(), "kill: {stopped}");
        Ok(())
    }

    /// From now on every request to the shared LUNs fails; those under way are lost.
    pub fn lose_storage(&mut self) {
        end(&mut self.path);
    }

    /// A new path to the shared LUNs, in order.
    pub fn restore_storage(&mut self) -> Result<()> {
        end(&mut self.path);
        let socket = self.own("luns");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-storage-daemon"]);
        for name in ["store", "web"] {
            let file = self.folder.join(format!("{name}.raw"));
            let file = file.display();
            command.args([
                "--blockdev",
                &format!(
                    "driver=file,node-name={name},filename={file},cache.direct=on,locking=off"
                ),
            ]);
        }
        command.args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())]);
        for name in ["store", "web"] {
            let export = format!("type=nbd,id={name}-x,node-name={name},name={name},writable=on");
            command.args(["--export", &export]);
        }
        self.path = Some(command.spawn().context("cannot start qemu-storage-daemon")?);
        within(Duration::from_secs(10), || std::fs::metadata(&socket)).map(drop)
    }

    fn monitor(&self) -> Result<&Monitor> {
        self.monitor.as_ref().with_context(|| format!("n{} is off", self.n))
    }

    /// When the monitor told of it, after `since`.
    pub fn told(&self, event: &str, since: Instant) -> Option<Instant> {
        self.monitor.as_ref()?.told(event, since)
    }

    pub fn agent(&self) -> GuestAgent {
        GuestAgent(self.own("agent"))
    }

    /// Until the machine has booted so far that it takes commands, and all of its units had their turn.
    pub fn wait_until_up(&self) -> Result<()> {
        let end = Instant::now() + BOOT;
        while !self.agent().is_there() {
            ensure!(Instant::now() < end, "n{} does not boot:\n{}", self.n, tail(&self.console()));
            thread::sleep(Duration::from_millis(500));
        }
        let wait = "systemctl is-system-running --wait || systemctl --failed --no-legend --plain";
        self.agent().run(wait, BOOT).map(drop)
    }

    /// Runs a script, whatever comes of it.
    pub fn try_run(&self, script: &str) -> Result<Output> {
        self.agent().run(script, COMMAND).with_context(|| format!("n{}: {script}", self.n))
    }

    /// Runs a script that must succeed; what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.try_run(script)?;
        ensure!(
            output.code == 0,
            "n{}: {script}\nended with {}:\n{}",
            self.n,
            output.code,
            output.text
        );
        Ok(output.text)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
        end(&mut self.path);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The last lines.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
