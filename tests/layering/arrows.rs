//! Which module may use which. A new module gets its row here, and a new arrow its reason.

use crate::source::{crate_modules, sources};

/// Module, and what it may use beside itself. From the bottom to the top.
const ARROWS: [(&str, &[&str]); 25] = [
    ("addr", &[]),
    ("clock", &[]),
    ("fault", &[]),
    ("heap", &[]),
    ("hash", &[]),
    ("spelling", &[]),
    ("problem", &[]),
    ("log", &[]),
    ("signals", &[]),
    ("kernel", &["addr", "fault"]),
    // Its nouns are the kernel's values: a plan is lowered to a `kernel::state::State`.
    ("egress", &["addr", "kernel", "problem", "spelling", "hash"]),
    ("api", &["addr", "egress", "problem", "spelling"]),
    ("config", &["addr", "api", "egress", "problem", "spelling", "log"]),
    ("store", &["addr", "api", "clock", "config", "egress", "fault", "hash", "problem"]),
    // Files of a node's runtime, and one door for whole ones; it knows nothing of what Egret does.
    ("install", &["store"]),
    ("ipam", &["addr", "egress", "fault", "hash", "problem", "store"]),
    // Blocks over the API are a store like a directory's. The plugin, its verbs and what is pure never see it.
    ("kube", &["addr", "api", "config", "egress", "ipam", "store"]),
    // Pages of whoever follows a cluster, and what is counted of it; whose they are it does not know.
    ("probes", &["kube"]),
    ("cni", &["addr", "config", "egress", "log", "problem"]),
    (
        "node",
        &["addr", "clock", "cni", "config", "egress", "fault", "hash", "ipam", "kernel", "problem", "store"],
    ),
    // The cluster behind it is its own affair: `node` knows a trait. Of `api` it has the words for foreign objects.
    (
        "agent",
        &[
            "addr", "api", "cni", "config", "egress", "hash", "ipam", "kernel", "kube", "node", "probes",
            "problem", "signals", "store",
        ],
    ),
    // What it frees it frees by `ipam`, in the books that `kube` keeps. It knows no node's kernel, and no agent.
    (
        "controller",
        &["addr", "api", "config", "egress", "ipam", "kube", "probes", "problem", "signals", "store"],
    ),
    // It prints the schemas of the manifests that `api` reads.
    (
        "cli",
        &[
            "addr",
            "agent",
            "api",
            "cni",
            "config",
            "controller",
            "egress",
            "install",
            "ipam",
            "kernel",
            "kube",
            "log",
            "node",
            "probes",
            "problem",
            "spelling",
            "store",
        ],
    ),
    // The testbed looks at the program from outside.
    ("testbed", &["addr", "egress", "ipam", "kernel", "store"]),
    ("lib", &[]),
];

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let module = source.module();
        if module == "main" {
            continue;
        }
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "src/{}: module `{module}` has no row in tests/layering/arrows.rs",
                source.path
            ));
            continue;
        };
        for (number, line) in &source.lines {
            for used in crate_modules(line) {
                seen += 1;
                // Items of the crate's root are no modules: `crate::MACRO`.
                let is_module = ARROWS.iter().any(|(name, _)| *name == used);
                if is_module && used != module && !may.contains(&used.as_str()) {
                    wrong.push(source.at(*number, &format!("`{module}` may not use `{used}`: {line}")));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} arrows found: the search is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_search_finds_arrows_in_lists_and_paths() {
    assert_eq!(crate_modules("use crate::{addr, egress::model::Pool};"), ["addr", "egress"]);
    assert_eq!(crate_modules("let x: crate::node::Y = crate::cni::z();"), ["node", "cni"]);
}
