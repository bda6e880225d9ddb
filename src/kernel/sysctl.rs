//! Kernel settings below `/proc/sys`, and the originals of those that are the host's.
//!
//! In: paths with slashes (`net/ipv4/conf/eg1/rp_filter`). Out: values with single spaces. The files show the settings of the
//! namespace of the thread that opens them, so reading and writing happen inside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::{io, mem};

use super::netns::Netns;

/// Path → value before our first change, for settings that outlive our devices. The caller keeps it on disk: what is lost here
/// cannot be restored.
pub type Saved = BTreeMap<String, String>;

/// The device a setting belongs to, as in `net/ipv6/conf/DEVICE/…` and `net/ipv4/neigh/DEVICE/…`.
pub fn device_of(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?) {
        ("net", "ipv4" | "ipv6", "conf" | "neigh", device) => Some(device),
        _ => None,
    }
}

/// One line, single spaces: the kernel prints some settings with tabs (`ping_group_range`).
pub fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads settings inside a namespace. One that does not exist is absent from the answer.
pub fn read<'a>(netns: &Netns, paths: impl Iterator<Item = &'a str>) -> io::Result<BTreeMap<String, String>> {
    netns.run(|| {
        let mut found = BTreeMap::new();
        for path in paths {
            match std::fs::read_to_string(file(path)) {
                Ok(value) => found.insert(path.to_owned(), plain(&value)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(io::Error::new(error.kind(), format!("/proc/sys/{path}: {error}"))),
            };
        }
        Ok(found)
    })?
}

/// Settings that are read again and again, by files that stay open: to find a file takes the kernel ten times as long as to read it.
#[derive(Debug, Default)]
pub struct Reader(BTreeMap<String, File>);

impl Reader {
    /// The same as [`read`]. A file whose device is gone says so, and is looked for anew.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read<'a>(
        &mut self,
        netns: &Netns,
        paths: impl Iterator<Item = &'a str>,
    ) -> io::Result<BTreeMap<String, String>> {
        let (mut before, mut found, mut others) = (mem::take(&mut self.0), BTreeMap::new(), Vec::new());
        for path in paths {
            match before.remove(path).and_then(|file| Some((line(&file)?, file))) {
                Some((value, file)) => {
                    found.insert(path.to_owned(), value);
                    self.0.insert(path.to_owned(), file);
                }
                None => others.push(path),
            }
        }
        if others.is_empty() {
            return Ok(found);
        }
        found.extend(read(netns, others.iter().copied())?);
        netns.run(|| {
            for path in others {
                self.0.extend(File::open(file(path)).ok().map(|file| (path.to_owned(), file)));
            }
        })?;
        Ok(found)
    }
}

/// A setting's value as it is now, if that is one short line.
fn line(file: &File) -> Option<String> {
    let mut bytes = [0; 64];
    let length = file.read_at(&mut bytes, 0).ok().filter(|length| (1..bytes.len()).contains(length))?;
    std::str::from_utf8(&bytes[..length]).ok().map(plain)
}

/// Writes one setting inside a namespace; errors are sentences that name it.
pub fn write(netns: &Netns, path: &str, value: &str) -> Result<(), String> {
    said(netns, path, value, put(netns, path, value))
}

fn said(netns: &Netns, path: &str, value: &str, written: io::Result<io::Result<()>>) -> Result<(), String> {
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(match device_of(path) {
            Some(device) => format!("this kernel has no setting {path} (or there is no device {device})"),
            None => format!("this kernel has no setting {path}; is its module loaded?"),
        }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Err(format!("cannot write {path}: /proc/sys is mounted read-only here; run privileged"))
        }
        Ok(Err(error)) => Err(format!("cannot write `{value}` to {path}: {error}")),
        Err(error) => Err(format!("cannot enter {netns:?} to write {path}: {error}")),
    }
}

/// Gives a setting of the host back. A device's settings went with the device: there is nothing to give back, and one that comes by its name
/// has the host's values from the start.
///
/// # Errors
/// As [`write()`].
pub fn restore(netns: &Netns, path: &str, value: &str) -> Result<(), String> {
    match put(netns, path, value) {
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound && device_of(path).is_some() => Ok(()),
        written => said(netns, path, value, written),
    }
}

/// Whether a device is there, by its settings: whatever else is read of devices costs a dump.
pub fn has_device(netns: &Netns, device: &str) -> bool {
    let folder = |version| file(&format!("net/{version}/conf/{device}"));
    let there = || ["ipv4", "ipv6"].iter().any(|version| std::path::Path::new(&folder(version)).exists());
    netns.run(there).unwrap_or(true)
}

fn put(netns: &Netns, path: &str, value: &str) -> io::Result<io::Result<()>> {
    netns.run(|| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(file(path))
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
    })
}

fn file(path: &str) -> String {
    format!("/proc/sys/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_below_a_device_belongs_to_it_also_when_its_name_has_a_dot() {
        assert_eq!(device_of("net/ipv4/conf/egress.vxlan/rp_filter"), Some("egress.vxlan"));
        assert_eq!(device_of("net/ipv6/neigh/eth0/proxy_delay"), Some("eth0"));
        assert_eq!(device_of("net/ipv4/fib_multipath_hash_policy"), None);
        assert_eq!(device_of("net/ipv4/ip_forward"), None);
    }

    #[test]
    fn tabs_and_line_ends_do_not_make_a_difference() {
        assert_eq!(plain("0\t2147483647\n"), "0 2147483647");
    }
}
