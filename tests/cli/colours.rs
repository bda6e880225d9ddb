//! Colours: on a terminal, unless NO_COLOR or the terminal itself says no.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;

use crate::world::{Folder, begun};

/// What the program prints when its standard output is a terminal.
fn on_a_terminal(folder: &Folder, variables: &[(&str, &str)]) -> String {
    let (mut ours, mut its) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both places are written by the call; name, attributes and size may be null.
    let made = unsafe { libc::openpty(&raw mut ours, &raw mut its, none, none.cast(), none.cast()) };
    assert_eq!(made, 0, "a test needs a pseudo-terminal: is /dev/pts mounted?");
    // SAFETY: both were just opened, and nobody else owns them.
    let (ours, its) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(its)) };
    let mut program = Command::new(env!("CARGO_BIN_EXE_egret"));
    program.args(["lint", "-f", "."]).current_dir(folder.path()).stdout(its);
    program.env_remove("NO_COLOR").env("TERM", "xterm").envs(variables.iter().copied());
    let status = begun(&mut program).wait().unwrap();
    drop(program); // and with it its side of the terminal
    assert!(status.success());
    let mut said = Vec::new();
    // A terminal whose other side is closed ends with EIO, after all that was written.
    let _ = File::from(ours).read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn colours_are_for_terminals_alone_and_no_color_is_obeyed() {
    let folder = Folder::with(&[("shop.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")]);
    let plain = "1 object in 1 file: nothing wrong";
    assert!(on_a_terminal(&folder, &[]).contains("\x1b[32mnothing wrong\x1b[0m"));
    assert!(on_a_terminal(&folder, &[("NO_COLOR", "")]).contains('\x1b'), "empty is as good as unset");
    for off in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let said = on_a_terminal(&folder, &[off]);
        assert!(said.contains(plain) && !said.contains('\x1b'), "{off:?}: {said}");
    }
    let piped = folder.egret("lint -f .").out;
    assert!(piped.contains(plain) && !piped.contains('\x1b'), "{piped}");
}
