use super::super::backend::Place;
use super::super::{StoredNode, init};
use super::*;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

struct Shared(PathBuf);

impl Shared {
    fn new(name: &str) -> Self {
        let unique = format!("steadfast-records-{name}-{}", std::process::id());
        let root = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&root);
        let nodes = [1, 2].map(|id| StoredNode { id: NodeId(id), name: format!("n{id}") });
        let cluster = crate::pages::ClusterFile::new("test", &nodes).unwrap();
        init(&Place::Directory(root.clone()), &cluster, None).unwrap();
        Self(root)
    }

    fn layout(&self) -> Layout {
        Layout::open(&Place::Directory(self.0.clone())).unwrap().0
    }

    fn writer(&self, node: u32) -> RecordWriter {
        RecordWriter::open(&self.layout(), NodeId(node)).unwrap()
    }

    fn lines(&self, node: u32) -> Vec<String> {
        let lines = lines(&self.layout(), NodeId(node)).unwrap();
        lines.into_iter().map(|lines| String::from_utf8(lines).unwrap()).collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_a_node_recorded_is_read_by_every_other_and_by_its_next_incarnation() {
    let shared = Shared::new("read");
    assert!(shared.lines(1).is_empty());
    let mut writer = shared.writer(1);
    writer.append(b"one").unwrap();
    writer.append(b"two").unwrap();
    shared.writer(1).append(b"three").unwrap();
    assert_eq!(shared.lines(1), ["one", "two", "three"]);
    assert!(shared.lines(2).is_empty());
}

#[test]
fn the_newest_are_kept_however_many_are_written() {
    let shared = Shared::new("newest");
    let mut writer = shared.writer(1);
    // Of several lengths, so that what is written over begins and ends elsewhere.
    let text = |number: usize| format!("{number} {}", "x".repeat(number * 7_919 % 40_000));
    for number in 0..500 {
        writer.append(text(number).as_bytes()).unwrap();
    }
    // What was not written over yet of earlier rounds is there too.
    let found = shared.lines(1);
    let newest: Vec<String> = (460..500).map(text).collect();
    assert!(found.ends_with(&newest), "{} are there", found.len());
    let whole = |line: &String| (0..500).any(|number| *line == text(number));
    assert!(found.iter().all(whole));
}

#[test]
fn a_torn_record_is_not_there_and_hides_no_other() {
    let shared = Shared::new("torn");
    let mut writer = shared.writer(1);
    ["one", "two", "three"].iter().for_each(|text| writer.append(text.as_bytes()).unwrap());
    let path = shared.0.join("records/1.records");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(b"?", (BLOCK + format::HEADER) as u64).unwrap();
    assert_eq!(shared.lines(1), ["one", "three"]);
    shared.writer(1).append(b"four").unwrap();
    assert_eq!(shared.lines(1), ["one", "three", "four"]);
}

#[test]
fn a_record_that_would_leave_room_for_too_few_is_refused() {
    let shared = Shared::new("large");
    let mut writer = shared.writer(1);
    writer.append(&vec![b'x'; MAX_RECORD]).unwrap();
    let error = writer.append(&vec![b'x'; MAX_RECORD + 1]).unwrap_err().to_string();
    assert!(error.contains(&MAX_RECORD.to_string()), "{error}");
}
