//! What pure parts know nothing of, who may write leases, and where numbers live.

use crate::source::{Source, sources};

/// Files whose functions give the same answer whatever the machine does.
fn is_pure(path: &str) -> bool {
    let alone = [
        "addr.rs",
        "problem.rs",
        "spelling.rs",
        "hash.rs",
        "ipam/pool.rs",
        "ipam/block.rs",
        "ipam/lease.rs",
        "ipam/summary.rs",
        "ipam/audit.rs",
        "kernel/state.rs",
        "kernel/part.rs",
        "kernel/step.rs",
        "kernel/steps.rs",
        "kernel/effect.rs",
        "kernel/nft/table.rs",
        "kernel/nft/diff.rs",
        "kernel/nft/render.rs",
        "kernel/nft/intervals.rs",
        "cni/request.rs",
        "cni/prev_result.rs",
        "cni/relay.rs",
        "cni/version.rs",
        "controller/agents.rs",
        "controller/conditions.rs",
        "controller/election.rs",
        "controller/pace.rs",
        "controller/ranges.rs",
        "controller/reclaim.rs",
        "controller/status.rs",
        "controller/tally.rs",
        "controller/taints.rs",
        "controller/world.rs",
        "kube/mirror.rs",
        "kube/watched.rs",
    ];
    path.starts_with("egress/")
        || path.starts_with("egress.rs")
        || path.starts_with("api/")
        || path.starts_with("kube/mirror/")
        || alone.contains(&path)
}

/// What reaches out of a process, or differs from run to run.
const LOUD: [&str; 14] = [
    "rustls",
    "std::fs",
    "std::process",
    "std::thread",
    "std::io",
    "SystemTime",
    "Instant::now",
    "TcpStream",
    "UdpSocket",
    "std::os::",
    "nix::",
    "libc::",
    "netlink",
    "tokio",
];

/// The one switch that a build for one test reads from the environment.
const WEAKENED: &str = "EGRET_WITHOUT_BELTS";

fn found<'a>(source: &'a Source, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let names = move |line: &String| words.iter().any(|word| line.contains(word));
    source.lines.iter().filter(move |(_, line)| names(line)).map(|(number, line)| source.at(*number, line))
}

#[test]
fn pure_parts_know_no_files_clock_environment_or_kernel() {
    let pure: Vec<Source> = sources().into_iter().filter(|s| is_pure(&s.path)).collect();
    assert!(pure.len() > 40, "only {} pure files found", pure.len());
    let mut wrong: Vec<String> = pure.iter().flat_map(|s| found(s, &LOUD).collect::<Vec<_>>()).collect();
    wrong.extend(pure.iter().flat_map(|s| found(s, &["std::env"]).collect::<Vec<_>>()));
    wrong.retain(|line| !line.contains(WEAKENED));
    assert!(wrong.is_empty(), "pure parts reach out:\n{}", wrong.join("\n"));
}

#[test]
fn only_kube_speaks_to_a_cluster_and_nothing_starts_a_runtime() {
    let all = sources();
    let others = all.iter().filter(|s| s.module() != "kube");
    let mut wrong: Vec<String> = others.flat_map(|s| found(s, &["rustls"]).collect::<Vec<_>>()).collect();
    wrong.extend(
        all.iter().flat_map(|s| found(s, &["tokio::", "async fn", "async move"]).collect::<Vec<_>>()),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kube = all.iter().filter(|s| s.module() == "kube");
    assert!(kube.flat_map(|s| found(s, &["rustls"]).collect::<Vec<_>>()).count() > 0, "the search is broken");
}

#[test]
fn of_the_commands_only_ipam_release_writes_leases() {
    let all = sources();
    let cli: Vec<&Source> = all.iter().filter(|s| s.module() == "cli").collect();
    let writers = ["DirStore::under", "endpoints::put", "endpoints::remove", "nodes::ensure"];
    let wrong: Vec<String> = cli
        .iter()
        .filter(|s| s.path != "cli/ipam.rs")
        .flat_map(|s| found(s, &writers).collect::<Vec<_>>())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ipam = cli.iter().find(|s| s.path == "cli/ipam.rs").unwrap();
    let body: Vec<String> = found(ipam, &writers).collect();
    assert_eq!(body.len(), 1, "`ipam release` is the only command that opens the store to write: {body:?}");
}

/// Values that stand for something of ours in a kernel. Whoever needs one takes its name from `egress/numbers.rs`.
const NUMBERS: [&str; 8] = [
    "479_000",
    "479000",
    "0x0e00_0000",
    "0x0f00_0000",
    "0x7fff_ff00",
    "169.254.77",
    "(169, 254, 77",
    "\"egress.vxlan\"",
];

#[test]
fn the_kernels_numbers_stand_in_one_file() {
    let all = sources();
    let owner = all.iter().find(|s| s.path == "egress/numbers.rs").unwrap();
    assert!(
        found(owner, &NUMBERS).count() >= 5,
        "numbers.rs no longer holds the numbers that this test looks for"
    );
    let others = all.iter().filter(|s| s.path != "egress/numbers.rs" && s.module() != "testbed");
    let wrong: Vec<String> = others.flat_map(|s| found(s, &NUMBERS).collect::<Vec<_>>()).collect();
    assert!(wrong.is_empty(), "name these in egress/numbers.rs:\n{}", wrong.join("\n"));
}

/// A pipe among the files of the state or run directory must stop nobody, so they are read by one door, which looks what stands there.
/// Files of the kernel are none of these; nor is a folder, whose file descriptor waits for nobody.
#[test]
fn files_of_the_directories_are_read_by_one_door() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    let modules = ["store", "ipam", "node", "agent"];
    for source in sources().iter().filter(|source| modules.contains(&source.module())) {
        seen += 1;
        for (number, line) in &source.lines {
            let reads = ["fs::read(", "fs::read_to_string("].iter().any(|word| line.contains(word));
            if reads && !line.contains("/proc") {
                wrong.push(source.at(*number, line));
            }
        }
    }
    assert!(seen > 40, "only {seen} files of {modules:?}: the walk is broken");
    assert!(wrong.is_empty(), "read these with `store::read_whole`:\n{}", wrong.join("\n"));
}
