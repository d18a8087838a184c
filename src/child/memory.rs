//! An allocator that counts, so that a child can be held to a limit on every system.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

use super::OUT_OF_MEMORY;

/// The system's allocator. In a child that has a limit it counts what is taken, and ends the process beyond the limit; in
/// any other process it costs one look at a number that nobody writes.
///
/// ```
/// use lm_headroom::child::Counted;
///
/// #[global_allocator]
/// static ALLOCATOR: Counted = Counted;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted;

/// Bytes that may be taken; 0 where nothing is counted.
static LIMIT: AtomicIsize = AtomicIsize::new(0);
/// Bytes taken since counting began, less those given back, of which some may have been taken before.
static TAKEN: AtomicIsize = AtomicIsize::new(0);

/// Counts from now on, where [`Counted`] is this process's allocator, and ends the process at `bytes`.
pub(super) fn limit(bytes: usize) {
    LIMIT.store(isize::try_from(bytes).unwrap_or(isize::MAX).max(1), Ordering::Relaxed);
}

/// Counts `bytes` more, or ends the process.
fn take(bytes: usize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    // A layout has at most `isize::MAX` bytes.
    let bytes = bytes as isize;
    if TAKEN.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
        end();
    }
}

fn give_back(bytes: usize) {
    if LIMIT.load(Ordering::Relaxed) != 0 {
        TAKEN.fetch_sub(bytes as isize, Ordering::Relaxed);
    }
}

#[cold]
fn end() -> ! {
    #[cfg(unix)]
    // SAFETY: `_exit` may be called at any time. It runs nothing that could need the memory that there is not.
    unsafe {
        libc::_exit(OUT_OF_MEMORY)
    }
    #[cfg(not(unix))]
    std::process::abort()
}

// SAFETY: `System` keeps the contract of `GlobalAlloc`, and each method passes on to it what it was given.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, and `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        give_back(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`, and `block` came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }
}
