//! The table of roles.
//!
//! In: CNI_COMMAND says that a container runtime calls; else a person does. Out: that role's exit status.

use std::alloc::{GlobalAlloc, Layout};
use std::process::ExitCode;
use std::ptr;

use egret::node::plugin::Plugin;
use egret::{cli, cni, fault};

static NODE: Plugin = Plugin;

// musl gives every page back as soon as nothing is left in it and asks for it again a moment later; each such round costs a
// mapping, a fault and a flush (27 µs measured in a virtual machine), and a short call makes dozens.
#[global_allocator]
static MEMORY: Memory = Memory;

/// dlmalloc, and for what is large pages of its own, which are the kernel's again as soon as nobody needs them. An agent's image of ten
/// thousand objects is replaced by the next one at each change; between other memory such holes are filled with what stays, and the
/// next image needs new room.
struct Memory;

/// No call of the plugin needs that much, but for the image of some thousand objects.
const LARGE: usize = 1 << 20;
const SMALL: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
const PAGE: usize = 4096;

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

// SAFETY: whose memory a block is follows from its layout alone, which the caller gives back as it was; each side keeps its own promise.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if is_large(layout) { pages(layout.size()) } else { unsafe { SMALL.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if is_large(layout) { pages(layout.size()) } else { unsafe { SMALL.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: these pages were mapped for this block, with this size.
            unsafe { libc::munmap(at.cast(), layout.size()) };
        } else {
            // SAFETY: the caller's promise, passed on.
            unsafe { SMALL.dealloc(at, layout) };
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow with this alignment.
        let next = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(next)) {
            // SAFETY: the caller's promise, passed on.
            (false, false) => unsafe { SMALL.realloc(at, layout, size) },
            (true, true) => {
                // SAFETY: these pages were mapped for this block; they move, if they must, with what they hold.
                let moved = unsafe { libc::mremap(at.cast(), layout.size(), size, libc::MREMAP_MAYMOVE) };
                if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
            }
            // SAFETY: two blocks that do not overlap, each as long as is copied; the old one goes after that.
            _ => unsafe {
                let new = self.alloc(next);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(at, new, layout.size().min(size));
                    self.dealloc(at, layout);
                }
                new
            },
        }
    }
}

fn main() -> ExitCode {
    fault::arm();
    // Decided before anything else is set up: this start is on the path of every pod.
    let called_by_runtime = std::env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty());
    if !called_by_runtime {
        return cli::run();
    }
    let exit = cni::plugin(&NODE);
    // SAFETY: the reply is printed, and nothing here waits for a thread's or the library's end: the kernel tidies up quicker.
    unsafe { libc::_exit(i32::from(exit)) }
}
