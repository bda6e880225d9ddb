//! Documents say what the program says, link to what exists, and speak of no machine but the reader's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::{files, root};

/// Files that git tracks.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("needs git: apt-get install git");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let all: Vec<PathBuf> = names.split('\0').filter(|n| !n.is_empty()).map(|n| root().join(n)).collect();
    assert!(all.len() > 50, "only {} tracked files", all.len());
    // Deleted, and not committed yet.
    all.into_iter().filter(|path| path.is_file()).collect()
}

/// Words that would tie the repository to one machine. In halves, so that this file does not hold them.
const FORBIDDEN: [(&str, &str); 6] = [
    ("/wo", "rk/"),
    ("/tmp/ba", "sh_jobs"),
    ("/ro", "ot/.cargo"),
    ("arti", "factory"),
    ("go", "proxy="),
    ("index-", "url"),
];

#[test]
fn no_file_speaks_of_one_machine() {
    let mut wrong = Vec::new();
    for path in tracked() {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).to_lowercase();
        for (first, second) in FORBIDDEN {
            let word = format!("{first}{second}");
            // A folder named like ours elsewhere (`net/work/`) is no path from the root.
            let at_start =
                |at: usize| !word.starts_with('/') || !text[..at].ends_with(|c: char| c.is_alphanumeric());
            if text.match_indices(&word).any(|(at, _)| at_start(at)) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pages() -> Vec<PathBuf> {
    let mut all = files(&root().join("docs"));
    all.retain(|path| path.extension().is_some_and(|e| e == "md"));
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name)));
    all
}

#[test]
fn the_help_in_the_readme_is_the_programs() {
    let output = Command::new(env!("CARGO_BIN_EXE_egret")).arg("-h").env("COLUMNS", "100").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split("$ egret -h\n").nth(1).and_then(|rest| rest.split("```").next());
    let trimmed =
        |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned();
    assert_eq!(trimmed(block.expect("README.md shows `$ egret -h`")), trimmed(&help));
}

#[test]
fn links_between_documents_lead_to_files() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            seen += 1;
            if !page.parent().unwrap_or(Path::new("")).join(file).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(seen > 10, "only {seen} links found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rows of the table of names in `docs/datapath.md` and the constants they speak of.
#[test]
fn the_table_of_numbers_is_current() {
    use egret::egress::numbers as n;
    let page = fs::read_to_string(root().join("docs/datapath.md")).unwrap();
    let rows = [
        ("link group", n::LINK_GROUP.to_string()),
        ("protocol", n::PROTOCOL.to_string()),
        ("nftables table", n::NFT_TABLE.to_owned()),
        ("nftables table of the agent", n::TRACKING_TABLE.to_owned()),
        ("tunnel device", n::TUNNEL.to_owned()),
        ("rule, tunnel", n::PRIORITY_TUNNEL.to_string()),
        ("rule, local gateways", n::PRIORITY_LOCAL.to_string()),
        ("rule, past the sets", n::PRIORITY_PAST.to_string()),
        ("rule, gateway sets", n::PRIORITY_SETS.to_string()),
        ("rule, behind the sets", n::PRIORITY_BEHIND.to_string()),
        ("rule, brake", n::PRIORITY_BRAKE.to_string()),
        ("rule, belt", n::PRIORITY_BELT.to_string()),
        (
            "rules in a gateway",
            format!("{}`–`{}", n::gateway_priority::FROM_TUNNEL, n::gateway_priority::FROM_LEASE),
        ),
        ("routing tables", n::TABLES.to_string()),
        ("nexthops", format!("{:#x}", n::NEXTHOPS)),
        ("nexthop groups", format!("{:#x}", n::NEXTHOP_GROUPS)),
        ("gateways' VNIs", egret::store::nodes::FIRST_VNI.to_string()),
        ("pin", format!("{:#x}", n::PIN_MASK)),
        ("dead pin", format!("{:#x}", n::PIN_DEAD)),
        ("tunnel address", n::TUNNEL_ADDRESS.to_string()),
        ("veth address", n::VETH_ADDRESS.to_string()),
    ];
    let missing: Vec<&str> = rows
        .iter()
        .filter(|(name, value)| {
            let row = page.lines().find(|line| line.starts_with(&format!("| {name} |")));
            !row.is_some_and(|row| row.contains(&format!("`{value}`")))
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(missing.is_empty(), "docs/datapath.md is not current in: {}", missing.join(", "));
}
