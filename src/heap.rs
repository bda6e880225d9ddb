//! The memory that everything is made in: dlmalloc behind a lock, and pages of its own for what is large.
//!
//! In: layouts. Out: memory. Never: gives a page back and asks for it again a moment later, as musl's own does as soon as nothing is
//! left in it: each such round costs a mapping, a fault and a flush (27 µs measured in a virtual machine), and a short call makes dozens.
//!
//! The lock is the library's, a few instructions where nobody else asks. The crate's own is one of pthread, which was a quarter of
//! all instructions of a short DEL.
//!
//! What is large goes back to the kernel as soon as nobody needs it. An agent's image of ten thousand objects is replaced by the next one at
//! each change: between other memory such a hole is filled with what stays, and the next image needs new room beside it.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;

/// From here on a block has pages of its own. No call of the plugin needs that much, but where there are thousands of objects.
const LARGE: usize = 1 << 20;
/// The smallest page of any machine that we run on.
const PAGE: usize = 4096;

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

/// Whether a block has pages of its own: its layout says it, when it is made and when it goes.
fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

/// Fresh pages, which are zero; null if there are none.
fn pages(size: usize) -> *mut u8 {
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping where the kernel likes; nobody else's memory is touched.
    let at = unsafe { libc::mmap(ptr::null_mut(), size, rights, kind, -1, 0) };
    if at == libc::MAP_FAILED { ptr::null_mut() } else { at.cast() }
}

// Nowhere inlined: in each of the places that need memory the lock would make the program a sixteenth larger.
// SAFETY: dlmalloc keeps what a layout asks for, never gives the same memory twice, and is asked by one thread at a time. Neither it nor
// the lock, which is a futex, needs memory of this heap. Pages are mapped for one block and unmapped with it; which of the two a block
// has follows from its layout, which the caller gives back as it was.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return pages(layout.size());
        }
        // SAFETY: the caller's layout has a size.
        unsafe { self.arena().malloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: these pages were mapped for this block, with this size.
            unsafe { libc::munmap(memory.cast(), layout.size()) };
            return;
        }
        // SAFETY: the caller has it from here, with this layout.
        unsafe { self.arena().free(memory, layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return pages(layout.size());
        }
        // SAFETY: the caller's layout has a size.
        unsafe { self.arena().calloc(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow with this alignment.
        let next = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(next)) {
            // SAFETY: the caller has it from here, with this layout, and asks for more than nothing.
            (false, false) => unsafe { self.arena().realloc(memory, layout.size(), layout.align(), size) },
            (true, true) => {
                // SAFETY: these pages were mapped for this block; they move, if they must, with what they hold.
                let moved = unsafe { libc::mremap(memory.cast(), layout.size(), size, libc::MREMAP_MAYMOVE) };
                if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
            }
            // SAFETY: two blocks that do not overlap, each at least as long as what is copied; the old one goes after that.
            _ => unsafe {
                let new = self.alloc(next);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(memory, new, layout.size().min(size));
                    self.dealloc(memory, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_what_it_holds_while_it_grows_to_pages_of_its_own_and_back() {
        let heap = Heap::new();
        let sizes = [100, LARGE - 1, LARGE, 3 * LARGE + 5, 2 * LARGE, LARGE - 7, 10];
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each block is used within its size, and given back with the layout that it has.
        unsafe {
            let (mut block, mut size) = (heap.alloc_zeroed(layout(sizes[0])), sizes[0]);
            block.write(7);
            for next in sizes {
                block = heap.realloc(block, layout(size), next);
                assert!(!block.is_null() && block.addr().is_multiple_of(8));
                block.add(next - 1).write(9);
                assert_eq!((block.read(), block.add(next - 1).read()), (7, 9));
                size = next;
            }
            heap.dealloc(block, layout(size));
            let large = heap.alloc_zeroed(layout(LARGE));
            assert!((0..LARGE).step_by(PAGE).all(|at| large.add(at).read() == 0));
            heap.dealloc(large, layout(LARGE));
        }
    }
}
