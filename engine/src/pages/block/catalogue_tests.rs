use super::super::tests::Disk;
use super::super::{Geometry, Layout};
use super::*;
use crate::pages::cluster::StoredNode;

fn cluster() -> ClusterFile {
    let node = |id: u32| StoredNode { id: NodeId(id), name: format!("n{id}") };
    ClusterFile::new("test", &[node(1), node(2)]).unwrap()
}

fn catalogue(layout: &Layout, node: u32) -> Catalogue {
    Catalogue::new(layout.clone(), NodeId(node), &cluster())
}

/// Four places a node, and an agent that has run for long.
fn small(disk: &Disk) -> Catalogue {
    let layout = disk.layout();
    let geometry = Geometry { blobs: 4, ..layout.geometry };
    let mut catalogue = catalogue(&Layout { geometry, ..layout }, 1);
    catalogue.opened = Instant::now().checked_sub(2 * IN_FLIGHT).unwrap();
    catalogue
}

fn xml(number: usize) -> String {
    format!("<domain><name>vm{number}</name></domain>")
}

/// What node 2 wrote last as the ledger: it names these.
fn write_ledger(catalogue: &Catalogue, slot: u8, named: &[Digest]) {
    let vms: serde_json::Map<_, _> = named
        .iter()
        .map(|xml| {
            let stamp = serde_json::json!({"ballot": {"term": 1, "node": 1}, "version": 1});
            let spec = serde_json::json!({"id": xml, "name": "vm", "xml": xml, "memory_mib": 1, "vcpus": 1,
                "priority": 500, "labels": {}});
            (xml.to_string(), serde_json::json!({"spec": spec, "owner": 1, "since": stamp,
                "acknowledged": true, "failed_on": []}))
        })
        .collect();
    let ledger = serde_json::json!({"format": 1, "cluster": "test", "nodes": {}, "vms": vms});
    write_body(catalogue, slot, &serde_json::to_vec(&ledger).unwrap());
}

fn write_body(catalogue: &Catalogue, slot: u8, bytes: &[u8]) {
    let mut blocks = AlignedBuffer::new(format::body_size(bytes.len()));
    format::encode_body(bytes, NodeId(2), slot, blocks.get_mut()).unwrap();
    let area = catalogue.layout.body(NodeId(2), slot).unwrap();
    DirectFile::new(area, Access::Write).write(0, blocks.get()).unwrap();
}

#[test]
fn every_node_finds_what_any_node_put() {
    let disk = Disk::formatted("catalogue");
    let layout = disk.layout();
    let (one, two) = (catalogue(&layout, 1), catalogue(&layout, 2));
    let digest = one.put(&xml(1)).unwrap();
    assert_eq!(one.put(&xml(1)).unwrap(), digest);
    assert_eq!(two.get(digest).unwrap(), xml(1));
    // A node that has joined since.
    let three = catalogue(&layout, 3);
    let later = three.put(&xml(3)).unwrap();
    assert_eq!(one.get(later).unwrap(), xml(3));
    let missing = format!("{:#}", one.get(Digest::of(b"?")).unwrap_err());
    assert!(missing.contains("not in the catalogue") && missing.contains("enable"), "{missing}");
    // Both keep a copy, because each may give its own away.
    assert_eq!(two.put(&xml(1)).unwrap(), digest);
    assert_eq!(two.read_index(NodeId(2)).unwrap().blobs[0], digest);
}

#[test]
fn long_definitions_fit_up_to_the_size_of_a_blob() {
    let disk = Disk::formatted("long");
    let one = catalogue(&disk.layout(), 1);
    let longest = "x".repeat((64 << 10) - format::HEADER);
    let digest = one.put(&longest).unwrap();
    assert_eq!(one.get(digest).unwrap(), longest);
    let error = one.put(&format!("{longest}x")).unwrap_err().to_string();
    assert!(error.contains("65505 bytes") && error.contains("65504"), "{error}");
}

#[test]
fn a_torn_index_or_blob_loses_nothing_that_was_told() {
    let disk = Disk::formatted("torn-index");
    let layout = disk.layout();
    let one = catalogue(&layout, 1);
    let digests: Vec<Digest> = (0..3).map(|number| one.put(&xml(number)).unwrap()).collect();
    // The next write is cut off in the middle: it goes over the older copy.
    let index = layout.geometry.index(NodeId(1));
    let older = (one.read_index(NodeId(1)).unwrap().sequence + 1) % 2;
    disk.scribble(index + older * INDEX_COPY as u64 + 40, b"torn");
    let two = catalogue(&layout, 2);
    for (number, digest) in digests.iter().enumerate() {
        assert_eq!(two.get(*digest).unwrap(), xml(number));
    }
    // A damaged blob is told, and repaired by enabling the VM again.
    disk.scribble(layout.geometry.blob(NodeId(1), 1) + 50, b"damaged");
    let error = format!("{:#}", two.get(digests[1]).unwrap_err());
    assert!(error.contains("blob 1 of node #1") && error.contains("enable"), "{error}");
    assert_eq!(one.put(&xml(1)).unwrap(), digests[1]);
    assert_eq!(two.get(digests[1]).unwrap(), xml(1));
}

#[test]
fn a_full_area_gives_away_what_no_ledger_names_and_nothing_else() {
    let disk = Disk::formatted("full");
    let one = small(&disk);
    let digests: Vec<Digest> = (0..4).map(|number| one.put(&xml(number)).unwrap()).collect();
    let error = one.put(&xml(4)).unwrap_err().to_string();
    assert!(error.contains("all 4 places"), "put just now, all may be named soon: {error}");
    one.put.lock().unwrap().clear();
    write_ledger(&one, 0, &digests[..2]);
    write_ledger(&one, 1, &digests[1..3]);
    let fifth = one.put(&xml(4)).unwrap();
    for (number, digest) in digests[..3].iter().enumerate() {
        assert_eq!(one.get(*digest).unwrap(), xml(number));
    }
    assert_eq!(one.get(fifth).unwrap(), xml(4));
    assert!(one.get(digests[3]).is_err());
    assert!(one.put(&xml(5)).is_err(), "three are named, one is new");
}

#[test]
fn nothing_is_given_away_while_it_is_not_known_what_is_used() {
    let disk = Disk::formatted("unknown-use");
    let mut one = small(&disk);
    for number in 0..4 {
        one.put(&xml(number)).unwrap();
    }
    one.put.lock().unwrap().clear();
    // A young agent does not know what an earlier one put.
    one.opened = Instant::now();
    assert!(one.put(&xml(4)).unwrap_err().to_string().contains("of the agent's start"));
    one.opened = Instant::now().checked_sub(2 * IN_FLIGHT).unwrap();
    // A ledger that cannot be read, and that a page names.
    write_body(&one, 0, b"not a ledger");
    assert!(format!("{:#}", one.put(&xml(4)).unwrap_err()).contains("ledger of node #2"));
    // One that was cut off while it was written, and that no page names.
    let at = one.layout.geometry.body(NodeId(2), 0);
    disk.scribble(at + 40, b"torn");
    one.put(&xml(4)).unwrap();
}
