//! Every way in which a file comes to be another.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::policy::State;

/// A way in which the new content comes into `x.wasm` of the first folder. The second folder is elsewhere, on the same
/// file system.
type Way = fn(&Path, &Path, &[u8]);

const WAYS: [(&str, Way); 7] = [
    ("cp", |folder, _, bytes| fs::write(folder.join("x.wasm"), bytes).unwrap()),
    ("mv", |folder, _, bytes| {
        fs::write(folder.join("new"), bytes).unwrap();
        fs::rename(folder.join("new"), folder.join("x.wasm")).unwrap();
    }),
    ("mv from elsewhere", |folder, elsewhere, bytes| {
        fs::write(elsewhere.join("new"), bytes).unwrap();
        fs::rename(elsewhere.join("new"), folder.join("x.wasm")).unwrap();
    }),
    ("an editor with a backup", |folder, _, bytes| {
        fs::rename(folder.join("x.wasm"), folder.join("x.wasm~")).unwrap();
        fs::write(folder.join("x.wasm"), bytes).unwrap();
        fs::remove_file(folder.join("x.wasm~")).unwrap();
    }),
    ("an editor that truncates", |folder, _, bytes| {
        let mut file = File::create(folder.join("x.wasm")).unwrap();
        bytes.chunks(50).for_each(|part| file.write_all(part).unwrap());
    }),
    ("another symlink", |folder, elsewhere, bytes| {
        fs::write(elsewhere.join("new.wasm"), bytes).unwrap();
        symlink(elsewhere.join("new.wasm"), folder.join("link")).unwrap();
        fs::rename(folder.join("link"), folder.join("x.wasm")).unwrap();
    }),
    ("deleted and written anew", |folder, _, bytes| {
        fs::remove_file(folder.join("x.wasm")).unwrap();
        fs::write(folder.join("x.wasm"), bytes).unwrap();
    }),
];

/// A folder with the good policy as `x.wasm`, a folder elsewhere, and a store that watches the first.
fn watched() -> (Folder, Folder, Arc<PolicyStore>) {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    folder.drop_file("x.wasm", &module("good"));
    let store = folder.start();
    (folder, elsewhere, store)
}

fn decides(name: &'static str) -> impl Fn(&PolicyStatus) -> bool {
    move |status| status.name == name && status.deciding && status.state == State::Active
}

#[test]
fn new_content_is_used_however_it_came_and_no_half_of_it_ever() {
    for (way, replace) in WAYS {
        let (folder, elsewhere, store) = watched();
        let begin = Instant::now();
        replace(&folder.0, &elsewhere.0, &module("other-good"));
        let now = eventually(&store, decides("other-good"));
        assert_eq!(now.generation, 2, "by {way}");
        assert!(store.status().failed.is_empty(), "by {way}");
        println!("{way}: after {:?}", begin.elapsed());
    }
}

#[test]
fn a_file_that_is_written_slowly_is_read_when_it_is_whole() {
    let (folder, _elsewhere, store) = watched();
    let mut file = File::create(folder.0.join("x.wasm")).unwrap();
    for part in module("other-good").chunks(100) {
        file.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(120));
        assert!(store.status().failed.is_empty(), "half a file was read");
    }
    drop(file);
    eventually(&store, decides("other-good"));
}

#[test]
fn the_swap_of_a_mounted_volumes_data_folder_is_noticed() {
    let folder = Folder::new();
    let version = |name: &str, bytes: &[u8]| {
        fs::create_dir(folder.0.join(name)).unwrap();
        fs::write(folder.0.join(name).join("x.wasm"), bytes).unwrap();
    };
    version("..1", &module("good"));
    symlink("..1", folder.0.join("..data")).unwrap();
    symlink("..data/x.wasm", folder.0.join("x.wasm")).unwrap();
    let store = folder.start();
    assert_eq!(deciding(&store, Kind::Placement).name, "good");
    version("..2", &module("other-good"));
    symlink("..2", folder.0.join("..data_tmp")).unwrap();
    fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    fs::remove_dir_all(folder.0.join("..1")).unwrap();
    eventually(&store, decides("other-good"));
}

#[test]
fn modes_and_times_alone_load_nothing_anew() {
    let (folder, _elsewhere, store) = watched();
    let file = folder.0.join("x.wasm");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(store.wait_for_scan(2, PATIENCE));
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    assert!(store.wait_for_scan(3, PATIENCE));
    assert_eq!(deciding(&store, Kind::Placement).generation, 1);
}

#[test]
fn what_no_event_tells_of_is_found_by_the_rescan() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    // The target lies outside of what is watched: as silent as a file on another machine.
    fs::write(elsewhere.0.join("target"), module("good")).unwrap();
    symlink(elsewhere.0.join("target"), folder.0.join("x.wasm")).unwrap();
    let store = folder.start_with(Settings { rescan: Duration::from_millis(200), ..small() });
    assert_eq!(deciding(&store, Kind::Placement).name, "good");
    fs::write(elsewhere.0.join("target"), module("other-good")).unwrap();
    eventually(&store, decides("other-good"));
    fs::remove_file(elsewhere.0.join("target")).unwrap();
    eventually(&store, |status| status.name == "other-good" && status.state == State::LastGood);
}

#[test]
fn questions_during_a_reload_are_answered_by_the_old_or_the_new_and_by_nobody_else() {
    let (folder, _elsewhere, store) = watched();
    let mut seen = Vec::new();
    folder.drop_file("x.wasm", &module("other-good"));
    while seen.last().is_none_or(|name| name != "other-good") {
        let decider = store.ask_placement(&question(3, 3)).decider;
        assert!(decider.failures.is_empty(), "{decider:?}");
        seen.push(decider.name);
    }
    seen.dedup();
    assert_eq!(seen, ["good", "other-good"]);
}

/// Small modules a thousand times, then the shipped ones, whose compilation takes a third of a second, fifty times.
/// `cargo test --release -p steadfast-engine --lib policy::tests::reload -- --ignored --nocapture --test-threads 1`
#[test]
#[ignore = "takes a minute, and measures the whole process"]
fn a_thousand_reloads_leak_nothing() {
    let folder = Folder::new();
    let store = folder.unwatched(Settings::default());
    let mut generation = 0;
    for (times, modules) in [
        (1_000, [module("good"), module("other-good")]),
        (50, [built("placement"), built("rack-aware")]),
    ] {
        let mut reload = |times: usize| {
            for round in 0..times {
                generation += 1;
                folder.drop_file("x.wasm", &modules[round % 2]);
                store.scan();
                assert_eq!(deciding(&store, Kind::Placement).generation, generation);
            }
        };
        reload(10);
        let (before, begin) = (resident_kib(), Instant::now());
        reload(times);
        let (after, took) = (resident_kib(), begin.elapsed());
        println!("{times} reloads in {took:?}: {before} KiB resident before, {after} KiB after");
        assert!(after <= before + 4_096, "{before} KiB, then {after} KiB");
    }
}
