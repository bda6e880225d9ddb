//! The one door by which files of the state and run directories are read.
//!
//! In: a path. Out: all that the file says. Never: waits for a pipe's other end, or reads what has no end: nobody's pod starts behind it.
//!
//! It costs no call more than the library's own reading: that asks for the size too, and asks once more at the end.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

/// Larger files are refused: the books and plans of the largest cluster have a few megabytes.
const LARGEST: u64 = 256 << 20;

/// What a file says.
///
/// # Errors
/// It cannot be opened or read, or is no plain file, or larger than any of ours.
pub fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    read_with_look(path).map(|(_, bytes)| bytes)
}

/// The same, and how the file looked that said it.
///
/// # Errors
/// As [`read_whole`].
pub fn read_with_look(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    // Not blocking: the open of a pipe waits for who writes into it, otherwise.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let look = file.metadata()?;
    if look.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !look.is_file() {
        return Err(io::Error::other("it is no file but a pipe, socket or device; move it away"));
    }
    if look.len() > LARGEST {
        let message = format!("it has {} bytes, more than {LARGEST}; move it away", look.len());
        return Err(io::Error::other(message));
    }
    let bytes = first(&file, usize::try_from(look.len()).unwrap_or_default())?;
    Ok((look, bytes))
}

/// As many bytes as it had when it was looked at: our files are replaced and never grow. The memory is not cleared before.
fn first(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    while bytes.len() < length {
        let wanted = length - bytes.len();
        let room = bytes.spare_capacity_mut();
        // SAFETY: the kernel writes no more than is wanted, and room for that was reserved.
        let read = unsafe { libc::read(file.as_raw_fd(), room.as_mut_ptr().cast(), wanted) };
        match Errno::result(read) {
            Ok(0) => break,
            // SAFETY: so many were written behind what there was.
            Ok(read) => unsafe { bytes.set_len(bytes.len() + read.unsigned_abs()) },
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::tests::scratch;
    use std::fs;

    #[test]
    fn what_is_no_plain_file_is_said_and_neither_waited_for_nor_read_without_end() {
        let (root, _clean) = scratch();
        let pipe = root.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let endless = root.join("endless");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        for path in [pipe, endless] {
            assert!(read_whole(&path).unwrap_err().to_string().contains("no file but a pipe"), "{path:?}");
        }
        assert_eq!(read_whole(&root).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read_whole(&root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let large = root.join("large");
        File::create(&large).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(read_whole(&large).unwrap_err().to_string().contains("268435457 bytes"));
    }

    #[test]
    fn a_file_is_read_to_its_end_directly_and_by_a_link() {
        let (root, _clean) = scratch();
        for length in [0, 1, 4096, 300_000u32] {
            let text: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            fs::write(root.join("file"), &text).unwrap();
            let _ = fs::remove_file(root.join("link"));
            std::os::unix::fs::symlink("file", root.join("link")).unwrap();
            for name in ["file", "link"] {
                let (look, read) = read_with_look(&root.join(name)).unwrap();
                assert_eq!((look.len(), &read), (u64::from(length), &text), "{name}");
            }
        }
    }
}
