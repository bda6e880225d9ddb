//! The table of roles.
//!
//! In: CNI_COMMAND says that a container runtime calls; else a person does. Out: that role's exit status.

use std::process::ExitCode;

use egret::heap::Heap;
use egret::node::plugin::Plugin;
use egret::{cli, cni, fault};

static NODE: Plugin = Plugin::new();

#[global_allocator]
static MEMORY: Heap = Heap::new();

/// A runtime's call is answered before the library gets ready for `main`, on the path of every pod: it looks for the stack's end, and
/// sets up a second stack and handlers that say which thread's stack overflowed, for a process of one thread that lives for a
/// millisecond. The C library calls this with everything of its own in place.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = answer_a_runtime;

extern "C" fn answer_a_runtime() {
    if std::env::var_os("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        return;
    }
    fault::arm();
    cni::prepare();
    let exit = cni::plugin(&NODE);
    // SAFETY: the reply is printed, and nothing here waits for a thread's or the library's end: the kernel tidies up quicker.
    unsafe { libc::_exit(i32::from(exit)) }
}

fn main() -> ExitCode {
    fault::arm();
    cli::run()
}
