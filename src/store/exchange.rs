//! Two files change places, in one moment for everybody who looks.
//!
//! In: two paths of one file system. Out: each leads to what the other led to. Never: makes a name that is not there.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `renameat2` with `RENAME_EXCHANGE` (Linux 3.15), which musl has no function for.
///
/// # Errors
/// One of the two is not there, or their file system cannot exchange (NFS).
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let (a, b) = (CString::new(a.as_os_str().as_bytes())?, CString::new(b.as_os_str().as_bytes())?);
    let here = libc::AT_FDCWD;
    // SAFETY: both paths end in a zero byte and outlive the call, which only reads them.
    let done = unsafe {
        libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
