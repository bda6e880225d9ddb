//! Throw-away network namespaces for tests on the real kernel. They vanish with the value and with their threads.

use std::fs::File;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace of its own.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, with `lo` up.
    pub(crate) fn new() -> Namespace {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: they make network namespaces");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Namespace { file: file.join().unwrap() };
        namespace.sh("ip link set lo up");
        namespace
    }

    /// Runs something inside and gives its result.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a shell script inside and gives what it printed; it must succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.run(|| Command::new("sh").args(["-ec", script]).output().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{script}` failed: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A veth between two namespaces, both ends up, with these names here and there.
    pub(crate) fn wire(&self, here: &str, other: &Namespace, there: &str) {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.file.as_raw_fd());
        self.sh(&format!(
            "ip link add {here} type veth peer name {there} netns {path}; ip link set {here} up"
        ));
        other.sh(&format!("ip link set {there} up"));
    }

    /// Waits until these addresses of its own serve. One of IPv6 does a little after it was added, when work of the kernel has made
    /// its route and joined its solicited-node group; on a busy machine that takes a second.
    pub(crate) fn can_speak_from(&self, addresses: &[&str]) {
        for address in addresses {
            self.sh(&format!(
                "for i in $(seq 2000); do ip -6 route show table local | grep -q '^local {address} ' && exit 0
                 sleep 0.01; done; echo '{address} got no local route in 20 s' >&2; exit 1"
            ));
        }
    }
}
