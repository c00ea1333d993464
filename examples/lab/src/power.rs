//! The machine room: power switches, watchdogs and reset lines of all nodes, in one process
//! outside of all of them.
//!
//! Each node sees `/run/lab` with a watchdog socket of its own, the power socket (`off n2`,
//! `on n2`, `status n2`), and the FIFO that stands for `/proc/sysrq-trigger`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::lab::{Lab, MAX_NODES, Node};
use crate::power_log::Cause;
use crate::sys::{self, Process};
use crate::wait;
use crate::watchdog::{Connection, Watchdog};

pub const WATCHDOG_SOCKET: &str = "watchdog.sock";
pub const POWER_SOCKET: &str = "power.sock";
pub const SYSRQ: &str = "sysrq";
/// While this file is there, the power switches answer like a dead BMC.
const DEAD: &str = "power.dead";
/// How long an unarmed watchdog sleeps; it is woken when it is armed.
const IDLE: Duration = Duration::from_secs(3600);

impl Lab {
    /// Starts the daemon and waits until every socket is there.
    pub fn start_power(&self) -> Result<()> {
        for node in every_node() {
            sys::make_dir(&self.sockets(node))?;
        }
        let log = File::create(self.run.join("power.out"))?;
        let child = Command::new(self.program("steadfast-lab"))
            .args(["power", "--run"])
            .arg(&self.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the power daemon")?;
        let process = Process::new(i32::try_from(child.id())?);
        sys::write(&self.run.join("power.pid"), serde_json::to_vec(&process)?)?;
        wait::until("power daemon", Duration::from_secs(5), || {
            if process.is_none_or(|process| !process.is_alive()) {
                bail!("the power daemon ended: see {}", self.run.join("power.out").display());
            }
            // The FIFO is made last.
            let ready = every_node().all(|node| self.sockets(node).join(SYSRQ).exists());
            Ok(ready.then_some(()))
        })
    }

    pub fn stop_power(&self) {
        let text = fs::read_to_string(self.run.join("power.pid")).unwrap_or_default();
        if let Ok(process) = serde_json::from_str::<Process>(&text) {
            process.signal(Signal::SIGKILL);
        }
    }

    /// Makes the power switches refuse (a dead BMC), or work again.
    pub fn set_power_switches(&self, working: bool) -> Result<()> {
        let path = self.run.join(DEAD);
        if !working {
            return sys::write(&path, "");
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    pub fn power_switches_work(&self) -> bool {
        !self.run.join(DEAD).exists()
    }
}

/// Also those that may be added later: they find their watchdog, like a new server in its rack.
fn every_node() -> impl Iterator<Item = Node> {
    (1..=MAX_NODES).map(Node)
}

/// The daemon. Never returns unless it cannot start.
pub fn serve(lab: &Lab) -> Result<()> {
    nix::unistd::setsid().context("cannot leave the caller's session")?;
    for node in every_node() {
        let folder = lab.sockets(node);
        let watchdogs = listen(&folder.join(WATCHDOG_SOCKET))?;
        let switches = listen(&folder.join(POWER_SOCKET))?;
        let fifo = folder.join(SYSRQ);
        let _ = fs::remove_file(&fifo);
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600))
            .with_context(|| format!("cannot make {}", fifo.display()))?;
        let reset = ResetLine::open(&fifo)?;
        let shared = Arc::new(Timer::default());
        spawn(lab, node, move |lab| serve_watchdog(&lab, node, &watchdogs, &shared));
        spawn(lab, node, move |lab| serve_switches(&lab, &switches));
        spawn(lab, node, move |lab| reset.serve(&lab, node));
    }
    loop {
        thread::park();
    }
}

fn spawn(lab: &Lab, node: Node, body: impl FnOnce(Lab) + Send + 'static) {
    let lab = lab.clone();
    // A failed thread would be a node without power switch: end loudly instead.
    let started = thread::Builder::new().name(node.to_string()).spawn(move || body(lab));
    if let Err(error) = started {
        eprintln!("cannot start a thread for {node}: {error}");
        std::process::exit(1);
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let _ = fs::remove_file(path);
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

fn cut(lab: &Lab, node: Node, cause: Cause) -> bool {
    let result = lab.power_off(node, cause);
    match &result {
        Ok(()) => println!("{} {node} off: {cause:?}", sys::wall_ms()),
        Err(error) => eprintln!("{} {node}: {error:#}", sys::wall_ms()),
    }
    result.is_ok()
}

/// A watchdog, and the alarm that rings when its deadline moves.
#[derive(Debug, Default)]
struct Timer {
    watchdog: Mutex<Watchdog>,
    moved: Condvar,
}

impl Timer {
    fn with<T>(&self, body: impl FnOnce(&mut Watchdog) -> T) -> T {
        let result = body(&mut self.watchdog.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
        result
    }

    /// The boot of the node that was not fed in time.
    fn next_bite(&self) -> Process {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            if let Some(process) = watchdog.expire(now) {
                return process;
            }
            let left = watchdog.deadline().map_or(IDLE, |at| at.saturating_duration_since(now));
            let woken = self.moved.wait_timeout(watchdog, left);
            watchdog = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn serve_watchdog(lab: &Lab, node: Node, listener: &UnixListener, timer: &Arc<Timer>) {
    let (bites, own_lab) = (timer.clone(), lab.clone());
    spawn(lab, node, move |_| {
        loop {
            let boot = bites.next_bite();
            if own_lab.power(node) == Some(boot) {
                cut(&own_lab, node, Cause::Watchdog);
            }
        }
    });
    for stream in listener.incoming().flatten() {
        let timer = timer.clone();
        spawn(lab, node, move |lab| {
            let mut client = Connection::default();
            // However the connection ends, the close counts.
            let _ = feed(&lab, node, &stream, &mut client, &timer);
            timer.with(|watchdog| watchdog.on_close(&client));
        });
    }
}

fn feed(
    lab: &Lab,
    node: Node,
    mut stream: &UnixStream,
    client: &mut Connection,
    timer: &Timer,
) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        // The clock is read first: looking up the node must not lengthen the time-out.
        let now = Instant::now();
        let Some(process) = lab.power(node) else { return Ok(()) };
        let reply = timer.with(|watchdog| watchdog.on_line(client, &line, process, now));
        if let Some(reply) = reply {
            writeln!(stream, "{reply}")?;
        }
    }
    Ok(())
}

fn serve_switches(lab: &Lab, listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        let lab = lab.clone();
        thread::spawn(move || {
            // A client that goes away in the middle is its own problem.
            let _ = switch(&lab, stream);
        });
    }
}

fn switch(lab: &Lab, mut stream: UnixStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let reply = if lab.power_switches_work() {
        operate(lab, line.trim())
    } else {
        "error: the power switch does not answer".into()
    };
    println!("{} {:?} -> {reply}", sys::wall_ms(), line.trim());
    writeln!(stream, "{reply}")?;
    Ok(())
}

fn operate(lab: &Lab, request: &str) -> String {
    // The lab may have grown since.
    let now = Lab::load(&lab.run);
    let lab = now.as_ref().unwrap_or(lab);
    let Some((action, name)) = request.split_once(' ') else {
        return format!("error: {request:?} is not `off|on|status NODE`");
    };
    let node = match name.parse::<Node>() {
        Ok(node) if node.0 <= lab.options.nodes => node,
        _ => return format!("error: there is no node {name:?}"),
    };
    match action {
        "status" => if lab.power(node).is_some() { "on" } else { "off" }.into(),
        "off" if cut(lab, node, Cause::Fence) => "ok".into(),
        "off" => format!("error: {node} did not go off"),
        "on" => match lab.boot(node) {
            Ok(()) => "ok".into(),
            Err(error) => format!("error: {error:#}").replace('\n', " "),
        },
        _ => format!("error: unknown action {action:?}"),
    }
}

/// The FIFO that a node writes to in order to reset itself.
#[derive(Debug)]
struct ResetLine {
    /// Opened for writing too, so that a writer never blocks and a reader never sees the end.
    fifo: File,
    rest: File,
}

impl ResetLine {
    fn open(path: &Path) -> Result<Self> {
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let both = open(0).and_then(|fifo| Ok(ResetLine { fifo, rest: open(O_NONBLOCK)? }));
        both.with_context(|| format!("cannot open {}", path.display()))
    }

    fn serve(mut self, lab: &Lab, node: Node) {
        let mut buffer = [0; 256];
        while self.fifo.read(&mut buffer).is_ok_and(|length| length > 0) {
            cut(lab, node, Cause::Sysrq);
            // What a dead boot wrote must not reset the next one.
            while self.rest.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
        eprintln!("the reset line of {node} failed");
        std::process::exit(1);
    }
}
