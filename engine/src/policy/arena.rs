//! Linear memories of modules: the last one is kept, clean, for the next call.
//!
//! A fresh mapping costs a fault for each page that a call touches, and the calls of mapping it: a third of the time of a small call.
//! A memory that is used again is zeroed where it was touched and looks like a fresh one to the module.
#![allow(unsafe_code)]

use std::io::Error;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use libc::{PROT_NONE, PROT_READ, PROT_WRITE, c_void};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

const PAGE: usize = 4096;
/// Pages behind this are given back after a call. In front of it are a module's stack, of which little is touched, and the start of
/// its heap: so an idle agent keeps two MiB at most.
const KEPT: usize = 3 << 20;

/// Makes memories for modules.
#[derive(Default)]
pub(super) struct Arenas(Arc<Mutex<Option<Mapping>>>);

// SAFETY: memories are as large as asked, zeroed, never move, and end in inaccessible pages: see `Mapping`.
unsafe impl MemoryCreator for Arenas {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let size = reserved.unwrap_or(0).max(minimum).next_multiple_of(PAGE);
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let spare = spare.filter(|it| it.size == size && it.guard == guard);
        let mapping = spare.map_or_else(|| Mapping::new(size, guard), Ok);
        let mut arena = Arena {
            mapping: Some(mapping.map_err(|error| error.to_string())?),
            bytes: 0,
            home: Arc::clone(&self.0),
        };
        arena.resize(minimum).map_err(|error| error.to_string())?;
        Ok(Box::new(arena))
    }
}

/// A memory in use.
struct Arena {
    /// Only the end of it takes it away.
    mapping: Option<Mapping>,
    bytes: usize,
    home: Arc<Mutex<Option<Mapping>>>,
}

impl Arena {
    fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(mapping) = &mut self.mapping else { return Ok(()) };
        mapping.open(bytes)?;
        self.bytes = bytes;
        Ok(())
    }
}

// SAFETY: the address never changes, and all that `byte_size` says is readable and writable.
unsafe impl LinearMemory for Arena {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.mapping.as_ref().map_or(0, |it| it.size)
    }

    fn grow_to(&mut self, bytes: usize) -> wasmtime::Result<()> {
        Ok(self.resize(bytes)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ref().map_or(null_mut(), |it| it.base.cast())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // What cannot be cleaned is not kept.
        if let Some(mapping) = self.mapping.take().filter(|it| it.clean().is_ok()) {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(mapping);
        }
    }
}

/// Reserved addresses, of which the first bytes are open and the others, the guard behind them too, inaccessible.
struct Mapping {
    base: *mut c_void,
    size: usize,
    guard: usize,
    /// A multiple of the page's size.
    open: usize,
}

// SAFETY: it owns its addresses; nothing in it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared one can only tell where it is; that it is cleaned needs the one owner, its `Arena` that ends.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(size: usize, guard: usize) -> Result<Self, Error> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let all = size.checked_add(guard).ok_or_else(|| Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: a new mapping, where the system wants it.
        let base = unsafe { libc::mmap(null_mut(), all.max(PAGE), PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        if size > KEPT {
            // Who needs that much needs more: one fault for two megabytes, where the system has such pages to give.
            // SAFETY: within the mapping, which is ours alone. Refused, nothing is changed.
            unsafe { libc::madvise(base.byte_add(KEPT), size - KEPT, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, size, guard, open: 0 })
    }

    /// Makes so many bytes, rounded up to pages, accessible and all others inaccessible.
    fn open(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > self.size {
            return Err(Error::from_raw_os_error(libc::ENOMEM));
        }
        let wanted = bytes.next_multiple_of(PAGE);
        let (from, to, access) = if wanted > self.open {
            (self.open, wanted, PROT_READ | PROT_WRITE)
        } else {
            (wanted, self.open, PROT_NONE)
        };
        if from < to {
            // SAFETY: within the mapping, which is ours alone.
            check(unsafe { libc::mprotect(self.base.byte_add(from), to - from, access) })?;
        }
        self.open = wanted;
        Ok(())
    }

    /// All open pages read as zero from now on: those in memory are written, others given back.
    fn clean(&self) -> Result<(), Error> {
        let kept = self.open.min(KEPT);
        self.give_back(kept, self.open)?;
        let mut pages = vec![0_u8; kept / PAGE];
        // SAFETY: the open part of the mapping, and a byte for each of its pages.
        check(unsafe { libc::mincore(self.base, kept, pages.as_mut_ptr()) })?;
        let mut from = 0;
        for run in pages.chunk_by(|one, other| (one & 1) == (other & 1)) {
            let to = from + run.len() * PAGE;
            if run[0] & 1 == 1 {
                // SAFETY: open pages of ours; a module no longer runs in them.
                unsafe { self.base.byte_add(from).write_bytes(0, to - from) };
            } else {
                // Untouched, or written and swapped out.
                self.give_back(from, to)?;
            }
            from = to;
        }
        Ok(())
    }

    fn give_back(&self, from: usize, to: usize) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        // Locked pages, as an agent's are, need the newer word; older kernels do not know it.
        let give = |advice| {
            // SAFETY: pages of the mapping, which is ours alone; they read as zero afterwards.
            check(unsafe { libc::madvise(self.base.byte_add(from), to - from, advice) })
        };
        give(MADV_DONTNEED_LOCKED).or_else(|_| give(libc::MADV_DONTNEED))
    }
}

/// Since Linux 5.18.
const MADV_DONTNEED_LOCKED: libc::c_int = 24;

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody else knows of any more.
        unsafe { libc::munmap(self.base, (self.size + self.guard).max(PAGE)) };
    }
}

fn check(result: libc::c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8 << 20;

    fn written(arena: &Mapping, at: usize) -> u8 {
        // SAFETY: the tests only ask for open bytes.
        unsafe { arena.base.cast::<u8>().add(at).read() }
    }

    #[test]
    fn a_memory_that_was_written_anywhere_is_clean_for_the_next() {
        let mut arena = Mapping::new(SIZE, PAGE).unwrap();
        arena.open(SIZE).unwrap();
        let places = [0, 5, PAGE, 100 * PAGE + 7, KEPT - 1, KEPT, KEPT + 99 * PAGE, SIZE - 1];
        for at in places {
            // SAFETY: open bytes of our own mapping.
            unsafe { arena.base.cast::<u8>().add(at).write(7) };
        }
        arena.clean().unwrap();
        assert!((0..SIZE).step_by(97).chain(places).all(|at| written(&arena, at) == 0));
    }

    #[test]
    fn what_is_not_open_is_not_accessible() {
        let mut arena = Mapping::new(SIZE, PAGE).unwrap();
        arena.open(3 * PAGE).unwrap();
        arena.open(PAGE + 1).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = arena.base.addr();
        let access = |at: usize| {
            let holds = |line: &&str| {
                let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
                let number = |hex| usize::from_str_radix(hex, 16).unwrap();
                (number(from)..number(to)).contains(&(start + at))
            };
            maps.lines().find(holds).unwrap().split(' ').nth(1).unwrap().to_string()
        };
        let seen = [0, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE, SIZE - 1, SIZE].map(access);
        assert_eq!(seen, ["rw-p", "rw-p", "---p", "---p", "---p", "---p"]);
        assert!(arena.open(SIZE + 1).is_err());
    }

    #[test]
    fn the_last_memory_is_used_again() {
        let arenas = Arenas::default();
        let memory = || {
            let ty = MemoryType::new(1, None);
            arenas.new_memory(ty, 2 * PAGE, None, Some(SIZE), PAGE).unwrap()
        };
        let (one, other) = (memory(), memory());
        let places = [one.as_ptr(), other.as_ptr()];
        drop(one);
        assert_eq!((memory().as_ptr(), memory().byte_size()), (places[0], 2 * PAGE));
        drop(other);
        assert_eq!(memory().as_ptr(), places[1]);
    }
}
