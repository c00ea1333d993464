//! The module's allocator: made for one short call, after which the whole memory is dropped.
//!
//! Sizes are rounded up, small ones to sixteen bytes, large ones to powers of two; each has a list of freed blocks, and new blocks
//! are cut off the end of the memory. Both directions take a dozen instructions, which counts: a question of ten thousand VMs
//! is some hundred thousand small strings and maps. So does their size: the first touch of a page costs more than
//! anything that is written there.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

const PAGE: usize = 64 << 10;
/// Steps of small blocks: what a list's link needs, and the alignment of nearly everything.
const STEP: usize = 16;
/// The largest small block.
const SMALL: usize = 512;
const SMALL_CLASSES: usize = SMALL / STEP + 1;
const SMALL_LOG2: usize = SMALL.ilog2() as usize;
/// No block has more than a gigabyte.
const LARGEST_LOG2: usize = 30;
const CLASSES: usize = SMALL_CLASSES + LARGEST_LOG2 - SMALL_LOG2;

/// The module's heap.
#[allow(missing_debug_implementations)]
pub struct Heap(UnsafeCell<State>);

struct State {
    /// Freed blocks of each class, linked through their first word.
    freed: [*mut u8; CLASSES],
    next: usize,
    end: usize,
}

// SAFETY: the module has one thread (the host refuses shared memories).
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State { freed: [null_mut(); CLASSES], next: 0, end: 0 }));

/// A block's class, and the size of all of that class.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Class {
    number: usize,
    size: usize,
}

#[inline]
fn class(layout: Layout) -> Class {
    let size = layout.size();
    if size <= SMALL && layout.align() <= STEP {
        let number = size.div_ceil(STEP).max(1);
        return Class { number, size: number * STEP };
    }
    let size = size.max(layout.align()).max(SMALL * 2).next_power_of_two();
    Class { number: SMALL_CLASSES + size.ilog2() as usize - SMALL_LOG2 - 1, size }
}

impl State {
    fn cut(&mut self, class: Class) -> *mut u8 {
        let size = class.size;
        // Large blocks are aligned to their size, up to a page.
        let align = if size <= SMALL { STEP } else { size.min(PAGE) };
        let at = self.next.wrapping_add(align - 1) & !(align - 1);
        let Some(to) = at.checked_add(size).filter(|_| self.end != 0) else {
            return self.grow(class);
        };
        if to > self.end {
            return self.grow(class);
        }
        self.next = to;
        at as *mut u8
    }

    fn grow(&mut self, class: Class) -> *mut u8 {
        let pages = (class.size / PAGE + 1).max(memory_size(0) / 4);
        let before = memory_grow(0, pages);
        if before == usize::MAX {
            return null_mut();
        }
        let (from, to) = (before * PAGE, (before + pages) * PAGE);
        if from != self.end {
            self.next = from;
        }
        self.end = to;
        self.cut(class)
    }
}

// SAFETY: blocks are cut once, never overlap, are at least as large and as aligned as asked, and go to one
// owner at a time: from the list of their class, or fresh.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > 1 << LARGEST_LOG2 || layout.align() > PAGE {
            return null_mut();
        }
        let class = class(layout);
        // SAFETY: one thread, and nothing here calls back into the allocator.
        let state = unsafe { &mut *self.0.get() };
        let freed = state.freed[class.number];
        if freed.is_null() {
            return state.cut(class);
        }
        // SAFETY: a freed block begins with the link to the next.
        state.freed[class.number] = unsafe { freed.cast::<*mut u8>().read() };
        freed
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = class(layout).number;
        // SAFETY: as in `alloc`; the block is ours again and has room for the link.
        unsafe {
            let state = &mut *self.0.get();
            block.cast::<*mut u8>().write(state.freed[class]);
            state.freed[class] = block;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps alignment and size valid.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if class(wanted) == class(layout) {
            return block;
        }
        // SAFETY: both blocks are as large as their layouts say, and do not overlap.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                block.copy_to_nonoverlapping(new, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}
