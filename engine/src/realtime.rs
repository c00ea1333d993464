//! What keeps the lease must not wait for a page of memory or for somebody's busy loop: memory is locked, and three
//! threads (lease, corosync, watchdog) have real-time priority. They sleep nearly always; what they start does not inherit it.
//!
//! It needs `CAP_IPC_LOCK` or `LimitMEMLOCK=infinity`, and `CAP_SYS_NICE` or `LimitRTPRIO`. Without them the agent
//! works, and warns: a machine that swaps or is overloaded may stop its VMs for nothing.

use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering};

/// Above everything ordinary, below corosync (which takes the highest there is) and the kernel's own threads.
const PRIORITY: i32 = 10;
const CAP_IPC_LOCK: u32 = 14;

static WANTED: AtomicBool = AtomicBool::new(false);

/// Wanted by the configuration: locks what memory the process has and will have, as soon as it is touched.
///
/// # Errors
/// Why it cannot, with the remedy.
pub fn prepare() -> Result<(), String> {
    WANTED.store(true, Ordering::Relaxed);
    // With a limit the lock would succeed, and later a thread or a policy would get no memory.
    let limit = memory_limit();
    if limit != libc::RLIM_INFINITY && !has_capability(CAP_IPC_LOCK) {
        return Err(format!(
            "memory is not locked: the limit is {limit} bytes; set LimitMEMLOCK=infinity in the unit, or \
             run.realtime = false to be content with it"
        ));
    }
    lock_memory().map_err(|error| format!("memory is not locked: {error}"))
}

/// Gives the calling thread real-time priority, if it is wanted.
///
/// # Errors
/// Why it cannot, with the remedy.
pub fn raise() -> Result<(), String> {
    if !WANTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    raise_thread().map_err(|error| {
        format!(
            "no real-time priority: {error}; set LimitRTPRIO={PRIORITY} in the unit, or give it CAP_SYS_NICE, or \
             run.realtime = false to be content with it"
        )
    })
}

#[allow(unsafe_code)]
fn lock_memory() -> Result<(), Error> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes no memory of ours.
    if unsafe { libc::mlockall(flags) } < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn memory_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes for the whole call. It cannot fail for a known resource.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

#[allow(unsafe_code)]
fn raise_thread() -> Result<(), Error> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameter` is valid for reads for the whole call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_some_and(|effective| effective >> number & 1 == 1)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_raised_and_what_it_starts_is_not() {
        let raised = std::thread::spawn(|| {
            let result = raise_thread();
            let child = std::thread::spawn(policy).join().unwrap();
            (result, policy(), child)
        });
        let (result, own, child) = raised.join().unwrap();
        match result {
            Ok(()) => assert_eq!(own, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
        assert_eq!(child, libc::SCHED_OTHER);
    }

    #[allow(unsafe_code)]
    fn policy() -> i32 {
        // SAFETY: takes no memory; 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn capabilities_are_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
        assert_eq!(effective("CapEff:\t0000000000004000\n").unwrap() >> CAP_IPC_LOCK, 1);
    }
}
