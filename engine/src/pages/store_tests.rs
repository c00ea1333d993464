use super::format::BLOCK;
use super::*;
use std::collections::BTreeMap;
use steadfast_core::event::Event;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::{Ballot, BootId, Identity, Incarnation, Stamp};
use steadfast_core::page::{Pages, StorageError};

fn page(node: u32, sequence: u64) -> Page {
    let writer = Identity { node: NodeId(node), boot: BootId(5), incarnation: Incarnation(1) };
    let (promised, accepted) = (Ballot::default(), Stamp::default());
    let digest = Digest::default();
    Page {
        level: FeatureLevel::OLDEST,
        writer,
        sequence,
        promised,
        accepted,
        slot: 0,
        digest,
        armed: false,
        arming: Stamp::default(),
        disarmed: None,
        idle: true,
        none_left: None,
        last_words: None,
        view_size: 1,
        span: None,
        verification: None,
    }
}

struct World {
    root: PathBuf,
    received: mpsc::Receiver<Event>,
    sink: Sink,
}

impl World {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("steadfast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for node in ["1", "2"] {
            std::fs::create_dir_all(root.join(node)).unwrap();
        }
        let (sender, received) = mpsc::channel();
        Self { root, received, sink: Arc::new(move |event| drop(sender.send(event))) }
    }

    fn shared(&self) -> PathBuf {
        self.root.join("shared")
    }

    fn place(&self) -> Place {
        Place::Directory(self.shared())
    }

    fn init(&self) -> Result<()> {
        init(&self.place(), &ClusterFile::new("test", &nodes())?, None)
    }

    fn open(&self, node: u32) -> Result<Arc<PageStore>> {
        let run = self.root.join(node.to_string());
        Opening::new(self.place()).open(NodeId(node), &run, self.sink.clone())
    }

    fn next(&self) -> Event {
        self.received.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn write_ended(&self) -> Result<(), StorageError> {
        match self.next() {
            Event::WriteEnded { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn pages_read(&self) -> Result<Pages, StorageError> {
        match self.next() {
            Event::PagesRead { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn body_read(&self) -> Result<Vec<u8>, StorageError> {
        match self.next() {
            Event::BodyRead { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn both() -> Arc<BTreeSet<NodeId>> {
    Arc::new([NodeId(1), NodeId(2)].into())
}

fn nodes() -> Vec<StoredNode> {
    let node = |id: u32| StoredNode { id: NodeId(id), name: format!("n{id}") };
    vec![node(1), node(2)]
}

#[test]
fn pages_and_bodies_go_from_node_to_node() {
    let world = World::new("pages");
    world.init().unwrap();
    let (one, two) = (world.open(1).unwrap(), world.open(2).unwrap());
    two.read_pages(1, both());
    assert_eq!(world.pages_read(), Ok(BTreeMap::from([(NodeId(1), None), (NodeId(2), None)])));
    for sequence in 1..=5 {
        one.write_page(sequence, page(1, sequence));
        assert_eq!(world.write_ended(), Ok(()));
        two.read_pages(sequence, both());
        assert_eq!(world.pages_read().unwrap()[&NodeId(1)], Some(page(1, sequence)));
    }
    two.read_body(9, NodeId(1), 1);
    assert!(world.body_read().unwrap_err().0.contains("nothing was written"));
    for length in [3, 200_000, 70] {
        let body: Arc<[u8]> = vec![7; length].into();
        one.write_body(10, 1, Arc::clone(&body));
        assert_eq!(world.write_ended(), Ok(()));
        two.read_body(11, NodeId(1), 1);
        assert_eq!(world.body_read().unwrap(), body.as_ref());
    }
}

#[test]
fn a_page_that_could_tear_the_newest_is_refused() {
    let world = World::new("sequence");
    world.init().unwrap();
    let one = world.open(1).unwrap();
    let write = |sequence| {
        one.write_page(1, page(1, sequence));
        world.write_ended()
    };
    assert_eq!(write(8), Ok(()));
    assert_eq!(write(8), Ok(()));
    assert_eq!(write(9), Ok(()));
    assert!(write(11).unwrap_err().0.contains("page 11 after page 9"));
    assert!(write(8).is_err());
    assert_eq!(write(10), Ok(()));
}

#[test]
fn a_missing_or_damaged_slot_fails_the_whole_read_by_name() {
    let world = World::new("slots");
    world.init().unwrap();
    let one = world.open(1).unwrap();
    let path = world.shared().join("pages/2.page");
    std::fs::write(&path, vec![1; 2 * BLOCK]).unwrap();
    one.read_pages(1, both());
    let error = world.pages_read().unwrap_err().0;
    assert!(error.contains("n2") && error.contains("restore"), "{error}");
    std::fs::write(&path, vec![0; 10]).unwrap();
    one.read_pages(2, both());
    assert!(world.pages_read().unwrap_err().0.contains("10 bytes"));
    std::fs::remove_file(&path).unwrap();
    let two = world.open(2).unwrap();
    two.write_page(3, page(2, 1));
    assert!(world.write_ended().unwrap_err().0.contains("cannot open"));
    assert!(!path.exists(), "a write never creates a page");
}

#[test]
fn one_agent_a_node() {
    let world = World::new("lock");
    world.init().unwrap();
    let first = world.open(1).unwrap();
    let error = world.open(1).unwrap_err().to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    drop(first);
    // The threads end and let go of the lock.
    let again = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        world.open(1).ok()
    });
    assert!(again.is_some());
}

#[test]
fn init_is_idempotent_and_destroys_nothing() {
    let world = World::new("init");
    assert!(world.open(1).unwrap_err().to_string().contains("storage init"));
    world.init().unwrap();
    let one = world.open(1).unwrap();
    one.write_page(1, page(1, 1));
    assert_eq!(world.write_ended(), Ok(()));
    world.init().unwrap();
    one.read_pages(1, both());
    assert_eq!(world.pages_read().unwrap()[&NodeId(1)], Some(page(1, 1)));
    assert!(init(&world.place(), &ClusterFile::new("other", &nodes()).unwrap(), None).is_err());
    std::fs::remove_file(world.shared().join("cluster.json")).unwrap();
    assert!(world.init().unwrap_err().to_string().contains("holds data"));
    assert!(ClusterFile::new("test", &[nodes()[0].clone(), nodes()[0].clone()]).is_err());
}

#[test]
fn a_node_without_a_slot_is_refused() {
    let world = World::new("slotless");
    world.init().unwrap();
    std::fs::create_dir_all(world.root.join("3")).unwrap();
    assert!(world.open(3).unwrap_err().to_string().contains("no slot"));
}

#[test]
fn a_node_is_added_while_others_run_and_keeps_its_page_when_it_comes_again() {
    let world = World::new("added");
    world.init().unwrap();
    std::fs::create_dir_all(world.root.join("3")).unwrap();
    let one = world.open(1).unwrap();
    let third = |name: &str| StoredNode { id: NodeId(3), name: name.into() };
    one.add_node(&third("n3")).unwrap();
    one.add_node(&third("n3")).unwrap();
    let three = world.open(3).unwrap();
    three.write_page(1, page(3, 1));
    assert_eq!(world.write_ended(), Ok(()));
    one.add_node(&third("renamed")).unwrap();
    one.read_pages(1, Arc::new([NodeId(1), NodeId(3)].into()));
    let expected = BTreeMap::from([(NodeId(1), None), (NodeId(3), Some(page(3, 1)))]);
    assert_eq!(world.pages_read(), Ok(expected));
    one.add_node(&StoredNode { id: NodeId(4), name: "renamed".into() }).unwrap();
    let file = dir::read_cluster_file(&dir::Layout::new(&world.shared())).unwrap().unwrap();
    let ids: Vec<u32> = file.nodes.iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 2, 4]);
}

#[test]
fn the_catalogue_is_by_content() {
    let world = World::new("catalogue");
    world.init().unwrap();
    let one = world.open(1).unwrap();
    let digest = one.put_catalogue("<domain/>").unwrap();
    assert_eq!(one.put_catalogue("<domain/>").unwrap(), digest);
    assert_eq!(one.get_catalogue(digest).unwrap(), "<domain/>");
    let path = world.shared().join("catalogue").join(digest.to_string());
    std::fs::write(&path, "<other/>").unwrap();
    assert!(one.get_catalogue(digest).unwrap_err().to_string().contains("damaged"));
    assert_eq!(one.put_catalogue("<domain/>").unwrap(), digest);
    assert_eq!(one.get_catalogue(digest).unwrap(), "<domain/>");
}
