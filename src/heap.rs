//! The memory that everything is made in: dlmalloc behind a lock, and pages of its own for what is large.
//!
//! In: layouts. Out: memory. Never: gives a page back and asks for it again a moment later, as musl's own does as soon as nothing is
//! left in it: each such round costs a mapping, a fault and a flush (27 µs measured in a virtual machine), and a short call makes dozens.
//!
//! The lock is the library's, a few instructions where nobody else asks. The crate's own is one of pthread, which was a quarter of
//! all instructions of a short DEL.
//!
//! A small block that nobody needs any more is kept as it is, a few of each size, for who asks for that size next: it is still in the
//! processor's caches, and neither it nor its neighbours are looked at, which were a sixth of all that an agent computes for a call.
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

/// How dlmalloc aligns whatever it gives, and by how much the sizes differ that it has.
const GRAIN: usize = 2 * size_of::<usize>();
/// The smallest of these sizes: what is left of two grains behind the word before a block.
const LEAST: usize = 2 * GRAIN - size_of::<usize>();
/// So many of them are small.
const SIZES: usize = 32;
/// So many of each are kept: what a call makes and drops, not what is left of ten thousand objects.
const SPARE: usize = 64;

/// All memory of a process; to be its `#[global_allocator]`.
pub struct Heap(Mutex<Arena>);

impl Heap {
    /// Empty; the kernel is asked when somebody needs memory.
    #[expect(clippy::new_without_default, reason = "it is made once, in a static")]
    pub const fn new() -> Heap {
        Heap(Mutex::new(Arena { blocks: Dlmalloc::new(), spare: [const { Spare::NONE }; SIZES] }))
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is not large.
struct Arena {
    blocks: Dlmalloc,
    /// Small blocks that nobody has, by size.
    spare: [Spare; SIZES],
}

/// Blocks of one size, the last that came first. Each begins with the address of the next.
struct Spare {
    first: *mut u8,
    count: usize,
}

// SAFETY: whoever has the lists has the blocks in them; nobody else has their addresses.
unsafe impl Send for Spare {}

impl Spare {
    const NONE: Spare = Spare { first: ptr::null_mut(), count: 0 };
}

/// Which of the small sizes takes this.
fn small(size: usize, align: usize) -> Option<usize> {
    let n = size.saturating_sub(LEAST).div_ceil(GRAIN);
    (align <= GRAIN && n < SIZES).then_some(n)
}

/// All that dlmalloc gives for one of the small sizes, so that each block of a size can stand for each.
const fn whole(n: usize) -> usize {
    LEAST + n * GRAIN
}

impl Arena {
    /// # Safety
    /// As [`GlobalAlloc::alloc`].
    unsafe fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        let Some(n) = small(size, align) else {
            // SAFETY: the caller's own.
            return unsafe { self.blocks.malloc(size, align) };
        };
        let spare = &mut self.spare[n];
        let block = spare.first;
        if block.is_null() {
            // SAFETY: it is more than nothing.
            return unsafe { self.blocks.malloc(whole(n), GRAIN) };
        }
        // SAFETY: nobody has it, and it begins with what was written when it came.
        spare.first = unsafe { block.cast::<*mut u8>().read() };
        spare.count -= 1;
        block
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    unsafe fn free(&mut self, block: *mut u8, size: usize, align: usize) {
        let Some(n) = small(size, align) else {
            // SAFETY: the caller's own.
            return unsafe { self.blocks.free(block, size, align) };
        };
        let spare = &mut self.spare[n];
        if spare.count == SPARE {
            // SAFETY: it was made with this size.
            return unsafe { self.blocks.free(block, whole(n), GRAIN) };
        }
        // SAFETY: nobody has it any more; it is at least an address long, and aligned for one.
        unsafe { block.cast::<*mut u8>().write(spare.first) };
        spare.first = block;
        spare.count += 1;
    }

    /// # Safety
    /// As [`GlobalAlloc::alloc_zeroed`].
    unsafe fn zeroed(&mut self, size: usize, align: usize) -> *mut u8 {
        if small(size, align).is_none() {
            // SAFETY: the caller's own. It knows which of its pages are fresh.
            return unsafe { self.blocks.calloc(size, align) };
        }
        // SAFETY: a block is as long as it was asked for.
        unsafe {
            let block = self.alloc(size, align);
            if !block.is_null() {
                block.write_bytes(0, size);
            }
            block
        }
    }

    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    unsafe fn resize(&mut self, block: *mut u8, size: usize, align: usize, next: usize) -> *mut u8 {
        match (small(size, align), small(next, align)) {
            (Some(n), Some(m)) if n == m => block,
            // SAFETY: the caller's own.
            (None, None) => unsafe { self.blocks.realloc(block, size, align, next) },
            // SAFETY: two blocks that do not overlap, each at least as long as what is copied; the old one goes after that.
            _ => unsafe {
                let new = self.alloc(next, align);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, size.min(next));
                    self.free(block, size, align);
                }
                new
            },
        }
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
        unsafe { self.arena().alloc(layout.size(), layout.align()) }
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
        unsafe { self.arena().zeroed(layout.size(), layout.align()) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow with this alignment.
        let next = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(next)) {
            // SAFETY: the caller has it from here, with this layout, and asks for more than nothing.
            (false, false) => unsafe { self.arena().resize(memory, layout.size(), layout.align(), size) },
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
        let sizes =
            [2, 24, 25, 100, 104, 520, 521, LARGE - 1, LARGE, 3 * LARGE + 5, 2 * LARGE, LARGE - 7, 10];
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

    #[test]
    fn a_small_block_is_given_again_clean_if_asked_and_only_so_many_are_kept() {
        let heap = Heap::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: as above.
        unsafe {
            let blocks: Vec<*mut u8> = (0..2 * SPARE).map(|_| heap.alloc(layout(40))).collect();
            for block in &blocks {
                block.write_bytes(9, 40);
                heap.dealloc(*block, layout(40));
            }
            assert_eq!(heap.arena().spare[1].count, SPARE);
            let again = heap.alloc_zeroed(layout(33));
            assert_eq!(again, blocks[SPARE - 1], "the last that was kept");
            assert!((0..33).all(|at| again.add(at).read() == 0));
            let mut others: Vec<*mut u8> = (1..SPARE).map(|_| heap.alloc(layout(25))).collect();
            assert_eq!(heap.arena().spare[1].count, 0);
            others.push(again);
            others.sort();
            others.dedup();
            assert_eq!(others.len(), SPARE, "nobody has another's");
        }
    }

    #[test]
    fn a_block_that_must_lie_at_a_page_does() {
        let heap = Heap::new();
        let layout = Layout::from_size_align(100, PAGE).unwrap();
        // SAFETY: as above.
        unsafe {
            let block = heap.alloc(layout);
            assert!(block.addr().is_multiple_of(PAGE));
            heap.dealloc(block, layout);
        }
    }
}
