//! HA-watch beside the nodes: it looks on, and nothing depends on it.

use super::{Watch, lab};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::{api, wait};

/// As with `a_killed_members_guests_run_again_elsewhere`: whether anybody looks on makes no difference.
const MEMBER_MS: u64 = 6_000;
/// HA-watch is killed so long after the power cut: just before the node is missed. All of the failover happens without it.
const KILLED_AFTER: Duration = Duration::from_millis(700);

/// `steadfast-watch` on the machine outside of the nodes.
struct Service {
    program: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

impl Service {
    fn start(lab: &Lab) -> Result<Self> {
        let folder = lab.run.join("watch");
        // An earlier run's history is of another cluster.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        // Freed at once, and taken again by the service.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let agents: Vec<String> = lab
            .nodes()
            .map(|node| format!("{node} = \"unix:{}\"", folder.join(node.to_string()).display()))
            .collect();
        let text = format!(
            "[api]\nlisten = \"{address}\"\n[database]\nfile = \"{}\"\n[[cluster]]\nid = \"lab\"\nagents = {{ {} }}\n",
            folder.join("history.db").display(),
            agents.join(", ")
        );
        std::fs::write(folder.join("watch.toml"), text)?;
        let program = super::programs().join("steadfast-watch");
        let mut service = Self { program, folder, address, process: None };
        service.run(lab)?;
        Ok(service)
    }

    /// The agents' sockets are reached through each node's first process, which is another one after every boot.
    fn link(&self, lab: &Lab) -> Result<()> {
        for node in lab.nodes() {
            let link = self.folder.join(node.to_string());
            let _ = std::fs::remove_file(&link);
            if let Some(process) = lab.power(node) {
                let socket = process.root().join("run/steadfast/api.sock");
                std::os::unix::fs::symlink(socket, link)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, lab: &Lab) -> Result<()> {
        self.link(lab)?;
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join("watch.toml"));
        let process = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.process = Some(process.context("cannot start steadfast-watch")?);
        Ok(())
    }

    /// `kill -9`.
    fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.0 200"), "{path}: {head}\n{body}");
        Ok(serde_json::from_str(body)?)
    }

    /// What `path` answers once `wanted` wants it.
    fn until(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, Duration::from_secs(30), || Ok(self.get(path).ok().filter(&wanted)))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn ids(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|it| it["id"].as_str().map(Into::into)).collect()
}

/// Ids of all decisions that the agents still hold, those of dead nodes included.
fn held(lab: &Lab) -> Result<BTreeSet<String>> {
    let mut held = BTreeSet::new();
    for node in lab.nodes().filter(|node| lab.power(*node).is_some()) {
        for path in ["/v1/decisions?limit=1000", "/v1/decisions?scope=cluster&limit=1000"] {
            held.extend(ids(&api::get(lab, node, path)?));
        }
    }
    Ok(held)
}

/// What the history does not have of what the agents hold; it may take a moment.
fn no_gap(lab: &Lab, service: &Service) -> Result<usize> {
    let mut missing = BTreeSet::new();
    let found = wait::until("history without a gap", Duration::from_secs(20), || {
        let (Ok(held), Ok(kept)) = (held(lab), service.get("/v1/clusters/lab/events?limit=1000"))
        else {
            return Ok(None);
        };
        let kept = ids(&kept);
        missing = held.difference(&kept).cloned().collect();
        Ok(missing.is_empty().then_some(kept.len()))
    });
    found.with_context(|| format!("the history lacks {missing:?}"))
}

fn names(incident: &Value) -> Vec<&str> {
    let steps = incident["milestones"].as_array().into_iter().flatten();
    steps.filter_map(|step| step["name"].as_str()).collect()
}

/// The newest incident of a node, whole, once it says what is wanted.
fn incident(service: &Service, node: Node, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let of_node = |it: &&Value| it["node"] == node.to_string();
    wait::until("an incident", Duration::from_secs(30), || {
        let Ok(all) = service.get("/v1/clusters/lab/incidents") else { return Ok(None) };
        let Some(found) = all.as_array().into_iter().flatten().find(of_node) else {
            return Ok(None);
        };
        let whole = service.get(&format!("/v1/clusters/lab/incidents/{}", found["id"]))?;
        Ok(Some(whole).filter(&wanted))
    })
}

#[test]
fn a_failover_does_not_notice_that_ha_watch_is_killed_and_its_history_has_no_gap() -> Result<()> {
    let lab = lab("watched", Options::default())?;
    let leader = lab.wait_until_good()?;
    let mut service = Service::start(&lab)?;
    let all = lab.nodes().count();
    let reached = |clusters: &Value| {
        let agents = clusters[0]["agents"].as_object();
        agents.is_some_and(|agents| {
            agents.values().filter(|it| it["reachable"] == true).count() == all
        })
    };
    let seen = service.until("the cluster", "/v1/clusters", reached)?;
    println!("watched: {}", seen[0]["text"]);
    // It begins with whoever answers first.
    let by_leader = |clusters: &Value| clusters[0]["via"] == leader.to_string();
    service.until("the leader's eyes", "/v1/clusters", by_leader)?;
    no_gap(&lab, &service)?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let watch = Watch::begin(&lab);
    let failover = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            // The lab takes 300 ms before it cuts the power.
            thread::sleep(KILLED_AFTER + Duration::from_millis(300));
            service.kill()
        });
        let failover = lab.failover(victim);
        killer.join().expect("the killer").and(failover)
    })?;
    println!("watched: {} ms without HA-watch, {:?}", failover.ms, failover.milestones);
    ensure!(failover.ms <= MEMBER_MS, "took {} ms, limit {MEMBER_MS} ms", failover.ms);
    watch.end()?;
    service.run(&lab)?;
    service.until("the cluster again", "/v1/clusters", |all| all[0]["connected"] == true)?;
    let kept = no_gap(&lab, &service)?;
    let told = incident(&service, victim, |it| names(it).contains(&"vm_running"))?;
    println!("watched: {kept} events; {}: {} ({:?})", told["title"], told["summary"], names(&told));
    for step in ["suspected", "evicted", "decided", "start_ordered", "vm_running"] {
        ensure!(names(&told).contains(&step), "no {step} among {:?}", names(&told));
    }
    lab.boot(victim)?;
    lab.wait_until_good()?;
    service.link(&lab)?;
    let over = incident(&service, victim, |it| it["closed_wall_ms"].is_number())?;
    println!("watched: {}", over["summary"]);
    service.until("the node that came back", "/v1/clusters", reached)?;
    no_gap(&lab, &service)?;
    let availability = service.get("/v1/clusters/lab/availability")?;
    println!("watched: {availability}");
    let vms = availability["vms"].as_object().context("VMs")?;
    // Counted from the first suspicion, which comes up to a second after the power cut.
    let was_down = |vm: &Value| vm["down_ms"].as_u64() > Some(0) && vm["failovers"] == 1;
    ensure!(vms.values().any(was_down), "no VM was down: {availability}");
    lab.check_single()
}
