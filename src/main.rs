//! The table of roles.
//!
//! In: CNI_COMMAND says that a container runtime calls; else a person does. Out: that role's exit status.

use std::process::ExitCode;

use egret::heap::Heap;
use egret::node::plugin::Plugin;
use egret::{cli, cni, fault};

static NODE: Plugin = Plugin;

#[global_allocator]
static MEMORY: Heap = Heap::new();

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
