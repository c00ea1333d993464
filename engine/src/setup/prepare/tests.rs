//! A machine is prepared, cut, repeated and forgotten.

use super::super::testing::Machine;
use super::*;

fn options() -> Options {
    Options { wait_s: 0, ..Options::default() }
}

fn done(machine: &Machine) -> Vec<Line> {
    prepare(&machine.host(), &options(), &mut Tell::nobody()).expect("prepared")
}

fn changed(lines: &[Line]) -> Vec<&'static str> {
    lines.iter().filter(|line| line.state != step::State::InOrder).map(|line| line.step).collect()
}

#[test]
fn a_fresh_machine_gets_all_that_a_node_needs_and_a_second_run_touches_nothing() {
    let machine = Machine::debian("prepare-twice");
    let lines = done(&machine);
    let steps =
        ["folders", "packages", "watchdog", "sleep", "hook", "corosync", "agent", "journal"];
    assert_eq!(changed(&lines), steps);
    for file in [
        "etc/systemd/journald.conf.d/50-steadfast.conf",
        "etc/libvirt/hooks/qemu.d/steadfast",
        "etc/systemd/system/steadfastd.service",
        "etc/systemd/system/corosync.service.d/steadfast.conf",
    ] {
        assert!(machine.0.join(file).is_file(), "{file}");
    }
    let units = std::fs::read_dir(machine.0.join("fake/active")).expect("a folder").flatten();
    let mut running: Vec<_> = units.map(|unit| unit.file_name()).collect();
    running.sort();
    assert_eq!(
        running,
        ["libvirtd.service", "systemd-journald.service", "systemd-timesyncd.service"]
    );
    let (times, log) = (machine.times(), machine.log());
    assert_eq!(changed(&done(&machine)), Vec::<&str>::new());
    assert_eq!(machine.times(), times, "something was touched");
    assert_eq!(machine.log(), log, "something was run");
}

#[test]
fn a_preview_changes_nothing_and_names_every_change() {
    let machine = Machine::debian("prepare-preview");
    let before = machine.tree();
    let lines = preview(&machine.host(), &options()).expect("looked at");
    assert_eq!(machine.tree(), before);
    let told: Vec<String> = lines.iter().flat_map(|line| line.changes.clone()).collect();
    assert!(told.iter().any(|change| change.starts_with("apt-get install corosync")), "{told:?}");
    assert!(told.iter().any(|change| change == "load softdog"), "{told:?}");
}

#[test]
fn forgetting_puts_everything_back_byte_for_byte() {
    let machine = Machine::debian("forget");
    machine.put("etc/chrony/chrony.conf", "pool example iburst\n");
    machine.put("fake/enabled/chrony.service", "");
    machine.put("fake/active/chrony.service", "");
    machine.put("etc/libvirt/hooks/qemu", "#!/bin/sh\n");
    let mut before = machine.tree();
    done(&machine);
    assert!(machine.read("etc/chrony/chrony.conf").ends_with("maxslewrate 4000\n"));
    assert!(forget(&machine.host(), false, |_| ()).expect("forgotten"));
    let mut after = machine.tree();
    // Journald was restarted, and a driver that is loaded stays loaded until the next boot.
    after.remove(std::path::Path::new("fake/active/systemd-journald.service"));
    after.retain(|path, _| !path.starts_with("sys"));
    before.retain(|path, _| !path.starts_with("sys"));
    let names = |tree: &std::collections::BTreeMap<_, _>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    assert_eq!(after, before);
    assert!(!forget(&machine.host(), false, |_| ()).expect("nothing left"));
}

#[test]
fn a_cut_after_any_change_is_completed_by_a_repeat_and_forgotten_as_well() {
    let whole = Machine::debian("prepare-whole");
    let fresh = whole.tree();
    done(&whole);
    let wanted = whole.tree();
    let mut cuts = 0;
    for changes in (0..).step_by(3) {
        let machine = Machine::debian("prepare-cut");
        let host = machine.host().with_fuse(changes);
        if prepare(&host, &options(), &mut Tell::nobody()).is_ok() {
            break;
        }
        cuts += 1;
        // Odd ones are forgotten as they are.
        if changes % 2 == 0 {
            done(&machine);
            let is = machine.tree();
            let differ = |path: &&std::path::PathBuf| {
                is.get(*path) != wanted.get(*path) && !path.ends_with("prepared.json")
            };
            let wrong: Vec<_> = is.keys().chain(wanted.keys()).filter(differ).collect();
            assert_eq!(wrong, Vec::<&std::path::PathBuf>::new(), "cut after {changes} changes");
        }
        forget(&machine.host(), false, |_| ()).expect("forgotten");
        let mut is = machine.tree();
        is.retain(|path, _| {
            !path.starts_with("sys") && !path.ends_with("systemd-journald.service")
        });
        let extra: Vec<_> = is.keys().filter(|path| !fresh.contains_key(*path)).collect();
        assert!(extra.is_empty(), "cut after {changes} changes: {extra:?}");
    }
    assert!(cuts > 20, "only {cuts} changes");
}

#[test]
fn a_node_of_a_cluster_and_a_node_with_guests_are_not_forgotten() {
    let machine = Machine::debian("forget-member");
    done(&machine);
    machine.put("var/lib/steadfast/joined.json", "{}");
    let refusal = forget(&machine.host(), false, |_| ()).expect_err("a member");
    assert!(refusal.to_string().contains("remove-node"), "{refusal}");
}

#[test]
fn an_unknown_system_and_a_watchdog_in_other_hands_are_refused_before_anything_is_changed() {
    let machine = Machine::debian("prepare-refused");
    machine.put("etc/os-release", "ID=plan9\n");
    let before = machine.tree();
    let refusal = prepare(&machine.host(), &options(), &mut Tell::nobody()).expect_err("refused");
    assert!(refusal.to_string().contains("plan9"), "{refusal}");
    assert_eq!(machine.tree(), before);
}

#[test]
fn a_real_watchdog_comes_before_the_kernels_own() {
    let machine = Machine::debian("prepare-watchdog");
    machine.put("sys/class/watchdog/watchdog0/identity", "Software Watchdog\n");
    machine.put("sys/class/watchdog/watchdog1/identity", "i6300ESB timer\n");
    let found = watchdog::devices(&machine.host());
    assert_eq!(found[0].path, "/dev/watchdog1");
    let lines = done(&machine);
    let line = lines.iter().find(|line| line.step == "watchdog").expect("a step");
    assert!(line.changes.is_empty() && line.checks[0].text.contains("i6300ESB"), "{line:?}");
}

#[test]
fn corosync_of_another_cluster_is_left_alone() {
    let machine = Machine::debian("prepare-foreign");
    machine.put("fake/packages/corosync", "");
    machine.put("fake/active/corosync.service", "");
    machine
        .put("etc/corosync/corosync.conf", "nodelist {\n node {\n  ring0_addr: 10.0.0.1\n }\n}\n");
    let lines = done(&machine);
    assert!(machine.0.join("fake/active/corosync.service").exists());
    let line = lines.iter().find(|line| line.step == "corosync").expect("a step");
    assert_eq!(line.checks[0].level, crate::doctor::Level::Yellow);
}
