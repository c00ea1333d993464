use super::{Known, ProcessId, is_alive, pidfd, running, uuid, watch};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant as Wall};
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;

const PATIENCE: Duration = Duration::from_secs(10);

/// A process that looks like QEMU: a copy of the shell that waits for its standard input.
struct Pretender {
    child: Child,
    binary: PathBuf,
}

impl Pretender {
    fn start(uuid: &str) -> Self {
        let binary = std::env::temp_dir().join(format!("steadfast-{}-{uuid}", std::process::id()));
        std::fs::create_dir_all(&binary).unwrap();
        let qemu = binary.join("qemu-system-x86_64");
        std::fs::copy("/bin/sh", &qemu).unwrap();
        let mut command = Command::new(qemu);
        command.args(["-c", "read line", "sh", "-uuid", uuid]).stdin(Stdio::piped());
        // Another test's fork may hold the copy open for writing for a moment.
        let child = loop {
            match command.spawn() {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => continue,
                result => break result.unwrap(),
            }
        };
        Self { child, binary }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Pretender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.binary);
    }
}

fn find(vm: &str) -> Option<ProcessId> {
    let end = Wall::now() + PATIENCE;
    loop {
        // Another test's pretender may begin or die at this moment: that is an error by design.
        match running(Path::new("/proc"), &mut Known::default()) {
            Ok(guests) => break guests.into_iter().find(|g| g.vm.0 == vm).map(|g| g.process),
            Err(error) => assert!(Wall::now() < end, "{error:#}"),
        }
    }
}

#[test]
fn a_guest_is_named_by_the_uuid_on_its_command_line_in_lower_case() {
    let line = b"/usr/bin/qemu-system-x86_64\0-name\0guest=a\0-uuid\0AB-1\0-S\0";
    assert_eq!(uuid(line), Some(VmId("ab-1".into())));
    assert_eq!(uuid(b"qemu-img\0convert\0"), None);
    assert_eq!(uuid(b"qemu-system-x86_64\0-uuid"), None);
}

#[test]
fn a_running_process_is_seen_and_a_zombie_is_not() {
    let vm = "a0000000-0000-4000-8000-000000000001";
    let mut pretender = Pretender::start(vm);
    let process = find(vm).unwrap();
    assert_eq!(process.pid, pretender.pid());
    let fd = pidfd::open(process).unwrap().unwrap();
    assert!(!pidfd::wait(&fd, Duration::from_millis(10)).unwrap());
    pidfd::kill(&fd).unwrap();
    assert!(pidfd::wait(&fd, PATIENCE).unwrap());
    // Not reaped yet: a zombie.
    assert_eq!(find(vm), None);
    assert!(!is_alive(Path::new("/proc"), process).unwrap());
    pretender.child.wait().unwrap();
    assert!(pidfd::open(process).unwrap().is_none());
}

#[test]
fn a_process_number_that_is_used_again_is_another_process() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let other = ProcessId { pid, started: 1 };
    assert!(!is_alive(Path::new("/proc"), other).unwrap());
    assert!(pidfd::open(other).unwrap().is_none());
}

#[test]
fn a_dead_leader_with_a_living_thread_still_executes() {
    let proc = FakeProc::new("dead-leader");
    proc.process(7, 'Z', "qemu-system-x86", b"");
    proc.task(7, 8, 'D', b"qemu-system-x86_64\0-uuid\0AA\0");
    let guests = running(&proc.0, &mut Known::default()).unwrap();
    assert_eq!(guests.iter().map(|g| g.vm.0.as_str()).collect::<Vec<_>>(), ["aa"]);
}

#[test]
fn a_dead_process_with_only_dead_threads_is_gone() {
    let proc = FakeProc::new("all-dead");
    proc.process(7, 'Z', "qemu) 1", b"");
    proc.task(7, 8, 'X', b"");
    assert_eq!(running(&proc.0, &mut Known::default()).unwrap(), []);
}

#[test]
fn a_dying_process_that_lost_its_command_line_keeps_the_name_it_had() {
    let proc = FakeProc::new("keeps-name");
    let mut known = Known::default();
    proc.process(7, 'S', "qemu-kvm", b"qemu-kvm\0-uuid\0AA\0");
    assert_eq!(running(&proc.0, &mut known).unwrap().len(), 1);
    proc.process(7, 'Z', "qemu-kvm", b"");
    proc.task(7, 8, 'D', b"");
    assert_eq!(running(&proc.0, &mut known).unwrap()[0].vm, VmId("aa".into()));
    let error = running(&proc.0, &mut Known::default()).unwrap_err();
    assert!(error.to_string().contains("process 7"), "{error:#}");
}

#[test]
fn a_renamed_qemu_is_known_by_the_arguments_that_libvirt_gives() {
    const UUID: &str = "a0000000-0000-4000-8000-00000000000A";
    let proc = FakeProc::new("renamed");
    let lines = [
        ("kvm", "/usr/bin/kvm -uuid AA", true),
        ("vmm", "/opt/vmm -name guest=a,debug-threads=on -uuid {}", true),
        ("sh", "/bin/sh /opt/wrapper -machine q35 -uuid {}", true),
        ("vmm", "/opt/vmm -name a -uuid {}", false),
        ("vmm", "/opt/vmm -machine q35 -uuid AA", false),
        ("bash", "bash", false),
    ];
    for (comm, line, is_guest) in lines {
        let line = line.replace("{}", UUID).replace(' ', "\0") + "\0";
        proc.process(7, 'S', comm, line.as_bytes());
        let found = !running(&proc.0, &mut Known::default()).unwrap().is_empty();
        assert_eq!(found, is_guest, "{line}");
    }
    // Also when only a thread of it is left.
    proc.process(7, 'Z', "vmm", b"");
    proc.task(7, 8, 'D', format!("/opt/vmm\0-machine\0q35\0-uuid\0{UUID}\0").as_bytes());
    assert_eq!(running(&proc.0, &mut Known::default()).unwrap().len(), 1);
}

#[test]
fn a_command_line_is_read_again_only_while_its_process_is_young_or_when_its_name_changes() {
    const GUEST: &[u8] = b"x\0-machine\0q35\0-uuid\0a0000000-0000-4000-8000-00000000000a\0";
    let proc = FakeProc::new("once");
    let mut known = Known::default();
    let mut look = |comm, line| {
        proc.process(7, 'S', comm, line);
        running(&proc.0, &mut known).unwrap().len()
    };
    // Started 47.11 s after boot.
    proc.uptime("50.00");
    assert_eq!(look("x", b"x\0"), 0);
    assert_eq!(look("x", GUEST), 1);
    assert_eq!(look("y", b"y\0"), 0);
    proc.uptime("60.00");
    assert_eq!(look("y", b"y\0"), 0);
    assert_eq!(look("y", GUEST), 0);
    // Executing a program names the process after it.
    assert_eq!(look("x", GUEST), 1);
    assert_eq!(look("x", b""), 1);
}

#[test]
fn a_thread_of_the_kernel_that_is_named_like_qemu_is_not_one() {
    let proc = FakeProc::new("kernel");
    proc.process(7, 'S', "kvm-pit/4711", b"");
    running(&proc.0, &mut Known::default()).unwrap_err();
    let stat = format!("7 (kvm-pit/4711) I 2 0 0 0 -1 2129984 {} 4711 0\n", "0 ".repeat(12));
    std::fs::write(proc.0.join("7/stat"), stat).unwrap();
    assert_eq!(running(&proc.0, &mut Known::default()).unwrap(), []);
}

/// Just enough of `/proc` for states that cannot be made at will.
struct FakeProc(PathBuf);

impl FakeProc {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("steadfast-proc-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let proc = Self(path);
        proc.uptime("1000000.00");
        proc
    }

    fn uptime(&self, seconds: &str) {
        std::fs::write(self.0.join("uptime"), format!("{seconds} 1.00\n")).unwrap();
    }

    fn process(&self, pid: i32, state: char, comm: &str, cmdline: &[u8]) {
        let directory = self.0.join(pid.to_string());
        Self::write(&directory, pid, state, comm, cmdline);
        Self::write(&directory.join("task").join(pid.to_string()), pid, state, comm, cmdline);
    }

    fn task(&self, pid: i32, thread: i32, state: char, cmdline: &[u8]) {
        let directory = self.0.join(pid.to_string()).join("task").join(thread.to_string());
        Self::write(&directory, thread, state, "CPU 0/KVM", cmdline);
    }

    fn write(directory: &Path, pid: i32, state: char, comm: &str, cmdline: &[u8]) {
        std::fs::create_dir_all(directory).unwrap();
        let stat = format!("{pid} ({comm}) {state} {} 4711 0\n", "0 ".repeat(18));
        std::fs::write(directory.join("stat"), stat).unwrap();
        std::fs::write(directory.join("cmdline"), cmdline).unwrap();
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

enum Told {
    Scanned(Instant, Vec<String>),
    Exited(String),
}

struct Teller(mpsc::Sender<Told>);

impl watch::Noticed for Teller {
    fn scanned(&self, began: Instant, guests: &[super::Guest]) {
        let names = guests.iter().map(|guest| guest.vm.0.clone()).collect();
        let _ = self.0.send(Told::Scanned(began, names));
    }

    fn exited(&self, vm: &VmId) {
        let _ = self.0.send(Told::Exited(vm.0.clone()));
    }
}

#[test]
fn the_exit_of_an_adopted_guest_is_told_and_a_fresh_scan_follows() {
    let vm = "a0000000-0000-4000-8000-000000000002";
    let start = Wall::now();
    let clock: watch::Clock =
        Arc::new(move || Instant(u64::try_from(start.elapsed().as_micros()).unwrap_or(0)));
    let (sender, told) = mpsc::channel();
    let guests = watch::Guests::start(clock.clone(), Arc::new(Teller(sender))).unwrap();
    let mut pretender = Pretender::start(vm);
    guests.adopt(&VmId(vm.into()));
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Scanned(_, names) if names.contains(&vm.to_owned()) => break,
            _ => guests.scan(),
        }
    }
    let killed = clock();
    pretender.child.kill().unwrap();
    loop {
        if let Told::Exited(name) = told.recv_timeout(PATIENCE).unwrap() {
            assert_eq!(name, vm);
            break;
        }
    }
    loop {
        if let Told::Scanned(began, names) = told.recv_timeout(PATIENCE).unwrap()
            && began > killed
        {
            assert!(!names.contains(&vm.to_owned()));
            break;
        }
    }
}
