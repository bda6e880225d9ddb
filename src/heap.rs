//! The memory that everything is made in: dlmalloc behind a lock.
//!
//! In: layouts. Out: memory. Never: gives a page back and asks for it again a moment later, as musl's own does as soon as nothing is
//! left in it: each such round costs a mapping, a fault and a flush (27 µs measured in a virtual machine), and a short call makes dozens.
//!
//! The lock is the library's, a few instructions where nobody else asks. The crate's own is one of pthread, which was a quarter of
//! all instructions of a short DEL.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;

/// All memory of a process; to be its `#[global_allocator]`.
pub struct Heap(Mutex<Dlmalloc>);

impl Heap {
    /// Empty; the kernel is asked when somebody needs memory.
    #[expect(clippy::new_without_default, reason = "it is made once, in a static")]
    pub const fn new() -> Heap {
        Heap(Mutex::new(Dlmalloc::new()))
    }

    fn arena(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: dlmalloc keeps what a layout asks for, never gives the same memory twice, and is asked by one thread at a time. Neither it nor
// the lock, which is a futex, needs memory of this heap.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout has a size.
        unsafe { self.arena().malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller has it from here, with this layout.
        unsafe { self.arena().free(memory, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout has a size.
        unsafe { self.arena().calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here, with this layout, and asks for more than nothing.
        unsafe { self.arena().realloc(memory, layout.size(), layout.align(), size) }
    }
}
