//! Places where a test may kill the process, to see what the next one makes of what was left behind.
//!
//! In: the environment variable `EGRET_FAULT=NAME` or `EGRET_FAULT=NAME:N` (the Nth time the point is passed), and
//! `EGRET_FAULT_TRACE=FILE`; `EGRET_FAULT_AFTER_MICROS=N`; `EGRET_FAULT_PAUSE=MILLIS`; read only in builds with the feature `testbed`.
//! Out: `kill -9` of this process; the names of all points passed, a line each, in that file; windows of microseconds so wide that a
//! packet meets them. Without the feature: nothing at all.

/// Every point, with what is half done there. A test walks this list; a point that is not in it is a mistake.
pub const POINTS: &[(&str, &str)] = &[
    ("record.after-temp", "a record's temporary file is written, the record still has its old content"),
    ("record.after-rename", "a record is replaced, its folder not yet on disk"),
    (
        "ipam.after-cache-mark",
        "the pool's summary says that a block is being written; the block is as before",
    ),
    (
        "ipam.after-block-write",
        "the block is written, the pool's summary still says that one is being written",
    ),
    ("ipam.within-cache-write", "half of the pool's summary is written"),
    ("ipam.after-cache-write", "block and summary are written, nobody was told"),
    ("endpoint.after-write", "the endpoint is written, nobody was told"),
    ("endpoint.after-remove", "the endpoint is gone, its lease is not yet"),
    ("add.after-record", "the attachment is recorded, nothing is leased or wired"),
    ("add.after-ground", "the node's ground is about to be laid, nothing is leased or wired"),
    ("add.after-lease", "the gateway's addresses are leased, it is not wired"),
    ("undo.after-record", "an ADD failed, its record is as before it, its wiring is not undone"),
    ("update.after-intention", "the next plan is on file, the kernel holds the one before"),
    ("update.while-held", "pods that become clients, or stop being ones, are held"),
    ("update.after-gateways", "the gateways' namespaces hold the next plan, the node's does not"),
    ("update.after-saving", "originals of the host's settings are saved, nothing is changed yet"),
    ("update.after-kernel", "the kernel holds the next plan, the file still says the one before"),
    (
        "update.after-answer",
        "the kernel holds the next plan and who asked was told, the file still says the one before",
    ),
    ("update.after-inputs", "what the next plan was made from is on file, the plan is not"),
    ("update.after-plan", "the plan is on file, nobody was told"),
    ("add.after-wiring", "the gateway is wired, the cluster does not know of it"),
    ("add.after-endpoint", "the gateway is published, the runtime was not told"),
    ("del.after-unwiring", "the kernel holds nothing of the attachment, its endpoint is still published"),
    ("del.after-endpoint", "the endpoint is gone, the lease still has its holder"),
    ("del.after-release", "the lease is released, the attachment is still recorded"),
    ("gc.after-attachments", "stale attachments are gone, leases without a holder are not yet looked for"),
    ("reconcile.after-withdrawal", "endpoints of lost attachments are gone, their records are not"),
    ("reconcile.after-records", "lost attachments are forgotten, their leases still have a holder"),
    ("node.after-write", "the node's record is written, nobody was told"),
];

/// Dies so many microseconds from now, wherever that is, if `EGRET_FAULT_AFTER_MICROS` asks for it.
#[cfg(not(feature = "testbed"))]
#[inline(always)]
pub fn arm() {}

/// Dies so many microseconds from now, wherever that is, if `EGRET_FAULT_AFTER_MICROS` asks for it.
#[cfg(feature = "testbed")]
pub fn arm() {
    let micros = std::env::var("EGRET_FAULT_AFTER_MICROS").ok().and_then(|text| text.parse().ok());
    let Some(micros) = micros.map(std::time::Duration::from_micros) else { return };
    std::thread::spawn(move || {
        std::thread::sleep(micros);
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    });
}

/// Between two steps that change a kernel: waits as long as `EGRET_FAULT_PAUSE` asks for.
#[cfg(not(feature = "testbed"))]
#[inline(always)]
pub fn pause() {}

/// Between two steps that change a kernel: waits as long as `EGRET_FAULT_PAUSE` asks for.
#[cfg(feature = "testbed")]
pub fn pause() {
    let millis = std::env::var("EGRET_FAULT_PAUSE").ok().and_then(|text| text.parse().ok());
    if let Some(millis) = millis {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }
}

/// Dies here if the environment asks for it.
#[cfg(not(feature = "testbed"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Dies here if the environment asks for it.
#[cfg(feature = "testbed")]
pub fn point(name: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(0);

    debug_assert!(POINTS.iter().any(|(known, _)| *known == name), "fault point `{name}` is not in POINTS");
    if let Some(path) = std::env::var_os("EGRET_FAULT_TRACE") {
        use std::io::Write;
        let trace = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = trace.and_then(|mut file| writeln!(file, "{name}"));
    }
    pause();
    let Ok(wanted) = std::env::var("EGRET_FAULT") else { return };
    let (wanted, nth) = match wanted.split_once(':') {
        Some((wanted, nth)) => (wanted, nth.parse().unwrap_or(1)),
        None => (wanted.as_str(), 1),
    };
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == nth {
        // SIGKILL and not abort: no handler, no destructor, no flush, as when the kernel or a person does it.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}
