//! On sparse plain files, and on loop devices where this machine has them.

use super::super::{Layout as Backend, PageStore};
use super::init::format;
use super::*;
use crate::pages::{Opening, Place, StoredNode};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::{Ballot, BootId, Identity, Incarnation, Stamp};
use steadfast_core::ledger::Ledger;
use steadfast_core::page::{Page, Pages, StorageError};

/// Enough, and not a whole number of blobs more.
const SIZE: u64 = (2_384 + 5) * MIB;

/// A sparse file in a folder of its own.
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(super) fn new(name: &str, size: u64) -> Self {
        let unique = format!("steadfast-block-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let disk = Self { folder };
        File::create(disk.path()).unwrap().set_len(size).unwrap();
        disk
    }

    pub(super) fn formatted(name: &str) -> Self {
        let disk = Self::new(name, SIZE);
        disk.init("test", None).unwrap();
        disk
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn init(&self, cluster: &str, force: Option<&Path>) -> Result<()> {
        format(&self.path(), &ClusterFile::new(cluster, &nodes())?, force)
    }

    pub(super) fn layout(&self) -> Layout {
        open_unclaimed(&self.path()).unwrap().0
    }

    /// Overwrites bytes, past every check.
    pub(super) fn scribble(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn nodes() -> Vec<StoredNode> {
    let node = |id: u32| StoredNode { id: NodeId(id), name: format!("n{id}") };
    vec![node(2), node(1), node(64)]
}

fn page(node: u32, sequence: u64) -> Page {
    let writer = Identity { node: NodeId(node), boot: BootId(5), incarnation: Incarnation(1) };
    let json = serde_json::json!({
        "writer": writer, "sequence": sequence, "promised": Ballot::default(), "accepted": Stamp::default(),
        "slot": 0, "digest": "00".repeat(32), "armed": false, "idle": true, "view_size": 1,
    });
    serde_json::from_value(json).unwrap()
}

/// A node's store, and what it answers.
struct Agent {
    store: PageStore,
    received: mpsc::Receiver<Event>,
}

impl Agent {
    fn new(disk: &Disk, node: u32) -> Self {
        let (layout, cluster) = open_unclaimed(&disk.path()).unwrap();
        let lock = Arc::new(File::create(disk.folder.join(format!("lock{node}"))).unwrap());
        let (sender, received) = mpsc::channel();
        let sink: crate::Sink = Arc::new(move |event| drop(sender.send(event)));
        let layout = Backend::Device(layout);
        let store =
            PageStore::start((layout, Default::default()), cluster, NodeId(node), lock, sink)
                .unwrap();
        Self { store, received }
    }

    fn next(&self) -> Event {
        self.received.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn write(&self, page: Page) -> Result<(), StorageError> {
        self.store.write_page(1, page);
        let Event::WriteEnded { result, .. } = self.next() else { panic!("not a write") };
        result
    }

    fn write_body(&self, slot: u8, bytes: Vec<u8>) -> Result<(), StorageError> {
        self.store.write_body(1, slot, bytes.into());
        let Event::WriteEnded { result, .. } = self.next() else { panic!("not a write") };
        result
    }

    fn pages(&self) -> Result<Pages, StorageError> {
        self.store.read_pages(1, Arc::new([1, 2, 64].map(NodeId).into()));
        let Event::PagesRead { result, .. } = self.next() else { panic!("not a read") };
        result
    }

    fn body(&self, node: u32, slot: u8) -> Result<Vec<u8>, StorageError> {
        self.store.read_body(1, NodeId(node), slot);
        let Event::BodyRead { result, .. } = self.next() else { panic!("not a read") };
        result
    }
}

#[test]
fn pages_and_bodies_go_from_node_to_node() {
    let disk = Disk::formatted("pages");
    let (one, last) = (Agent::new(&disk, 1), Agent::new(&disk, 64));
    let none = [1, 2, 64].map(|node| (NodeId(node), None));
    assert_eq!(last.pages(), Ok(none.into()));
    for sequence in 1..=5 {
        one.write(page(1, sequence)).unwrap();
        last.write(page(64, sequence + 7)).unwrap();
        let (read, also) = (last.pages().unwrap(), one.pages().unwrap());
        assert_eq!(read, also);
        assert_eq!(read[&NodeId(1)], Some(page(1, sequence)));
        assert_eq!(read[&NodeId(64)], Some(page(64, sequence + 7)));
        assert_eq!(read[&NodeId(2)], None);
    }
    assert!(last.body(1, 1).unwrap_err().0.contains("nothing was written"));
    for length in [3, 200_000, 70] {
        one.write_body(1, vec![7; length]).unwrap();
        last.write_body(0, vec![8; length]).unwrap();
        assert_eq!(last.body(1, 1).unwrap(), vec![7; length]);
        assert_eq!(one.body(64, 0).unwrap(), vec![8; length]);
    }
    assert!(one.body(65, 0).unwrap_err().0.contains("ids from 1 to 64"));
}

#[test]
fn a_ledger_of_10000_vms_fits_and_a_larger_body_than_its_slot_is_refused_with_both_sizes() {
    let disk = Disk::formatted("ledger");
    let one = Agent::new(&disk, 1);
    let body = ledger(10_000).encode();
    println!("a ledger of 10,000 VMs has {} KiB", body.len() / 1024);
    assert!(body.len() < 12 << 20, "{} bytes", body.len());
    one.write_body(0, body.clone()).unwrap();
    assert_eq!(one.body(1, 0).unwrap(), body);
    let error = one.write_body(1, vec![1; 16 << 20]).unwrap_err().0;
    assert!(error.contains("16777216 bytes") && error.contains("do not fit"), "{error}");
    assert_eq!(one.body(1, 0).unwrap(), body, "the other slot is untouched");
}

/// With long names, three labels and every number at its longest.
fn ledger(vms: u32) -> Ledger {
    let vm = |number: u32| {
        let id = format!("4dea22b3-1d52-d8f3-2516-{number:012x}");
        let stamp =
            serde_json::json!({"ballot": {"term": 123_456, "node": 64}, "version": 123_456_789});
        let entry = serde_json::json!({
            "spec": {
                "id": id, "name": format!("customer-{number:06}-database-primary.example.org"),
                "xml": "ab".repeat(32), "memory_mib": 1_048_576, "vcpus": 128, "priority": 1_000,
                "labels": {"rack": "building-7-row-12", "tier": "production", "customer": "a rather long name"},
            },
            "owner": 64, "since": stamp, "acknowledged": true, "failed_on": [1, 2, 3, 62, 63],
        });
        (id, entry)
    };
    let vms: serde_json::Map<String, serde_json::Value> = (0..vms).map(vm).collect();
    let json = serde_json::json!({"format": 1, "cluster": "test", "nodes": {}, "vms": vms});
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_torn_page_leaves_the_one_before_and_two_torn_blocks_fail_the_read_by_name() {
    let disk = Disk::formatted("torn");
    let one = Agent::new(&disk, 1);
    for sequence in 1..=4 {
        one.write(page(1, sequence)).unwrap();
    }
    let at = disk.layout().geometry.page(NodeId(1));
    disk.scribble(at + format::page_offset(4) + 600, b"torn");
    assert_eq!(one.pages().unwrap()[&NodeId(1)], Some(page(1, 3)));
    disk.scribble(at + format::page_offset(3) + 600, b"torn");
    let error = one.pages().unwrap_err().0;
    assert!(error.contains("page of n1 (#1)") && !error.contains("n2"), "{error}");
    // Its own next write repairs it.
    one.write(page(1, 5)).unwrap();
    assert_eq!(one.pages().unwrap()[&NodeId(1)], Some(page(1, 5)));
}

#[test]
fn a_device_that_is_too_small_is_refused_with_both_sizes() {
    let disk = Disk::new("small", 100 * MIB);
    let error = disk.init("test", None).unwrap_err().to_string();
    assert!(error.contains("100 MiB (104857600 bytes)"), "{error}");
    assert!(error.contains("2384 MiB (2499805184 bytes)"), "{error}");
    let geometry = |size| Geometry::for_size(Path::new("/dev/x"), size).unwrap();
    assert_eq!(geometry(2_384 * MIB).blobs, MIN_BLOBS);
    assert_eq!(geometry(10 * 1_024 * MIB).blobs, MAX_BLOBS);
    assert_eq!(geometry(1 << 50).blobs, MAX_BLOBS);
    for size in [2_384, 2_388, 3_000, 5_000, 20_000].map(|size| size * MIB) {
        assert!(geometry(size).end() <= size, "{size}");
        geometry(size).check(Path::new("/dev/x"), size).unwrap();
    }
}

#[test]
fn what_is_on_a_device_is_named_and_lost_only_by_its_name_said_again() {
    let disk = Disk::new("foreign", SIZE);
    let kind = if Command::new("mkfs.ext4").args(["-qF"]).arg(disk.path()).status().is_ok() {
        "ext4"
    } else {
        disk.scribble(0x438, b"\x53\xef");
        "ext"
    };
    let error = disk.init("test", None).unwrap_err().to_string();
    assert!(error.contains(kind) && error.contains("--force"), "{error}");
    let other = Path::new("/dev/sdz");
    let error = disk.init("test", Some(other)).unwrap_err().to_string();
    assert!(error.contains("/dev/sdz") && error.contains("nothing was written"), "{error}");
    let error = open_unclaimed(&disk.path()).unwrap_err().to_string();
    assert!(error.contains("storage init") && error.contains("ext"), "{error}");
    disk.init("test", Some(&disk.path())).unwrap();
    assert_eq!(open_unclaimed(&disk.path()).unwrap().1.cluster, "test");
    assert_eq!(foreign::probe(&disk.path()), None);
}

#[test]
fn every_known_signature_and_unknown_data_at_either_end_are_refused() {
    for (at, magic, name) in foreign::SIGNATURES.iter().skip(2) {
        let disk = Disk::new("signature", SIZE);
        disk.scribble(*at as u64, magic);
        let error = disk.init("test", None).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
    for at in [0, foreign::BEGIN as u64 - 1, SIZE - foreign::END as u64, SIZE - 1] {
        let disk = Disk::new("unknown", SIZE);
        disk.scribble(at, b"?");
        let error = disk.init("test", None).unwrap_err().to_string();
        assert!(error.contains("unknown kind"), "{at}: {error}");
    }
}

#[test]
fn init_is_idempotent_and_another_clusters_store_is_left_alone() {
    let disk = Disk::formatted("idempotent");
    let one = Agent::new(&disk, 1);
    one.write(page(1, 1)).unwrap();
    disk.init("test", None).unwrap();
    assert_eq!(one.pages().unwrap()[&NodeId(1)], Some(page(1, 1)));
    let error = disk.init("other", None).unwrap_err().to_string();
    assert!(error.contains("\"test\" with 3 nodes") && error.contains("\"other\""), "{error}");
    assert_eq!(one.pages().unwrap()[&NodeId(1)], Some(page(1, 1)));
    disk.init("other", Some(&disk.path())).unwrap();
    assert_eq!(one.pages().unwrap()[&NodeId(1)], None);
}

#[test]
fn a_store_whose_agents_write_is_not_even_overwritten_by_force() {
    let disk = Disk::formatted("live");
    let one = Agent::new(&disk, 1);
    let (stop, stopped) = mpsc::channel::<()>();
    let beats = std::thread::spawn(move || {
        let pause = Duration::from_millis(20);
        (1..).take_while(|_| stopped.recv_timeout(pause).is_err()).for_each(|sequence| {
            one.write(page(1, sequence)).unwrap();
        });
    });
    let error = disk.init("other", Some(&disk.path())).unwrap_err().to_string();
    assert!(error.contains("just now"), "{error}");
    stop.send(()).unwrap();
    beats.join().unwrap();
    disk.init("other", Some(&disk.path())).unwrap();
}

#[test]
fn opening_tells_what_is_wrong_with_the_header() {
    let disk = Disk::new("header", SIZE);
    let told = |disk: &Disk| format!("{:#}", open_unclaimed(&disk.path()).unwrap_err());
    assert!(told(&disk).contains("steadfast storage init"), "{}", told(&disk));
    disk.init("test", None).unwrap();
    // One copy is enough.
    disk.scribble(100, b"torn");
    open_unclaimed(&disk.path()).unwrap();
    disk.scribble(HEADER_COPY as u64 + 100, b"torn");
    assert!(told(&disk).contains("header") && told(&disk).contains("corrupted"), "{}", told(&disk));

    let disk = Disk::formatted("shrunk");
    OpenOptions::new().write(true).open(disk.path()).unwrap().set_len(2_000 * MIB).unwrap();
    assert!(told(&disk).contains("2000 MiB") && told(&disk).contains("shrunk"), "{}", told(&disk));
}

#[test]
fn headers_of_newer_versions_are_refused() {
    let disk = Disk::formatted("newer");
    let (_, header) = read_header(&disk.path()).unwrap().unwrap();
    let write = |header: &Header| {
        let mut copy = vec![0; HEADER_COPY];
        let json = serde_json::to_vec(header).unwrap();
        format::encode_record(HEADER_MAGIC, &json, 9, NOBODY, &mut copy).unwrap();
        disk.scribble(0, &copy);
        format!("{:#}", open_unclaimed(&disk.path()).unwrap_err())
    };
    let cluster = ClusterFile { format: 2, ..header.cluster.clone() };
    assert!(write(&Header { cluster, ..header.clone() }).contains("format 2, known is 1"));
    let odd = |geometry| write(&Header { geometry, ..header.clone() });
    let geometry = header.geometry;
    for wrong in [
        Geometry { block: 512, ..geometry },
        Geometry { slots: 65, ..geometry },
        Geometry { slots: 0, ..geometry },
        Geometry { body: 1 << 60, ..geometry },
        Geometry { blob: 0, ..geometry },
        Geometry { blobs: 1 << 40, ..geometry },
    ] {
        assert!(odd(wrong).contains("upgrade this node"), "{wrong:?}");
    }
}

#[test]
fn node_ids_beyond_the_slots_are_refused() {
    let disk = Disk::new("ids", SIZE);
    let node = StoredNode { id: NodeId(65), name: "n65".into() };
    let error = format(&disk.path(), &ClusterFile::new("test", &[node]).unwrap(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("#65") && error.contains("from 1 to 64"), "{error}");
}

#[test]
fn a_node_is_added_while_others_run_and_keeps_its_page_when_it_comes_again() {
    let disk = Disk::formatted("added");
    let one = Agent::new(&disk, 1);
    let third = |name: &str| StoredNode { id: NodeId(3), name: name.into() };
    one.store.add_node(&third("n3")).unwrap();
    one.store.add_node(&third("n3")).unwrap();
    let three = Agent::new(&disk, 3);
    three.write(page(3, 1)).unwrap();
    one.store.add_node(&third("renamed")).unwrap();
    one.store.read_pages(1, Arc::new([NodeId(3), NodeId(1)].into()));
    let Event::PagesRead { result, .. } = one.next() else { panic!("not a read") };
    assert_eq!(result.unwrap(), [(NodeId(1), None), (NodeId(3), Some(page(3, 1)))].into());
    one.store.add_node(&StoredNode { id: NodeId(4), name: "renamed".into() }).unwrap();
    let (sequence, header) = read_header(&disk.path()).unwrap().unwrap();
    let ids: Vec<u32> = header.cluster.nodes.iter().map(|node| node.id.0).collect();
    assert_eq!((sequence, ids), (5, vec![1, 2, 4, 64]));
    let beyond = StoredNode { id: NodeId(65), name: "n65".into() };
    assert!(one.store.add_node(&beyond).unwrap_err().to_string().contains("from 1 to 64"));
    // A header that is torn while a node is added is the one before.
    disk.scribble(sequence % 2 * HEADER_COPY as u64 + 60, b"torn");
    assert_eq!(read_header(&disk.path()).unwrap().unwrap().0, 4);
}

/// A loop device over a disk; `None` where there are none.
struct Loop(PathBuf);

impl Loop {
    fn attach(disk: &Disk) -> Option<Self> {
        let arguments = ["--direct-io=on", "--find", "--show"];
        let output = Command::new("losetup").args(arguments).arg(disk.path()).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn on_a_real_device_one_agent_a_node_and_nobody_else() {
    let disk = Disk::new("loop", SIZE);
    let Some(device) = Loop::attach(&disk) else {
        let _ = writeln!(std::io::stderr(), "no loop device here: not tried");
        return;
    };
    let path = device.0.as_path();
    let cluster = |name| ClusterFile::new(name, &nodes()).unwrap();
    init(path, &cluster("test"), None).unwrap();
    let (sender, received) = mpsc::channel();
    let sink: crate::Sink = Arc::new(move |event| drop(sender.send(event)));
    let opening = || Opening::new(Place::Device(path.to_owned()));
    let lock = |name: &str| {
        let folder = disk.folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let store = opening().open(NodeId(1), &lock("1"), Arc::clone(&sink)).unwrap();
    store.write_page(1, page(1, 1));
    assert_eq!(received.recv().unwrap(), Event::WriteEnded { id: 1, result: Ok(()) });
    store.read_pages(2, Arc::new([NodeId(1)].into()));
    let Event::PagesRead { result, .. } = received.recv().unwrap() else { panic!("not a read") };
    assert_eq!(result.unwrap()[&NodeId(1)], Some(page(1, 1)));
    let digest = store.put_catalogue("<domain/>").unwrap();
    assert_eq!(store.get_catalogue(digest).unwrap(), "<domain/>");
    // The page cache of the device was never used: the plain file below has it all.
    assert_eq!(Agent::new(&disk, 2).pages().unwrap()[&NodeId(1)], Some(page(1, 1)));

    for refused in [
        opening().open(NodeId(2), &lock("2"), sink).map(drop),
        init(path, &cluster("other"), Some(path)),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("in use on this node"), "{error}");
    }
    assert!(init(&disk.path(), &cluster("test"), None).is_err(), "a file is no device");
}
