//! What to do about a refusal of the file system. In: the error. Out: the end of a sentence, or nothing.

use std::io::{Error, ErrorKind};

/// `; free space on that file system` and the like; empty where the refusal says enough.
pub fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free space on that file system",
        ErrorKind::ReadOnlyFilesystem => "; that file system is mounted read-only, mount it writable",
        ErrorKind::PermissionDenied => "; Egret must run as root",
        _ => "",
    }
}
