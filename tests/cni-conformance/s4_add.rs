//! Section 4, second part: the pod, its namespace, and ADD again.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::call::{entry, result};
use crate::world::{
    Kind, bind, for_a_client, for_an_unselected_pod, for_every_pod, identity, ip, output, wait_until,
};

#[test]
fn row_4_14_unknown_arguments_are_ignored() {
    for_every_pod(|world| {
        world
            .call("ADD")
            .env("CNI_ARGS", "IgnoreUnknown=1;FOO=bar;K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p1")
            .run()
            .succeeds();
    });
}

#[test]
fn row_4_15_and_without_the_word_for_that_too() {
    for_every_pod(|world| {
        world.call("ADD").env("CNI_ARGS", "FOO=bar;IgnoreUnknown=0").run().succeeds();
    });
}

#[test]
fn row_4_16_malformed_arguments_are_tolerated() {
    for_every_pod(|world| {
        for args in ["FOO", "A=b=c", ";;=;", "=x", "K8S_POD_NAME", "K8S_POD_NAME=;K8S_POD_NAMESPACE="] {
            world.call("ADD").env("CNI_ARGS", args).run().succeeds();
        }
    });
}

#[test]
fn row_4_17_a_pod_without_a_name_passes() {
    for_every_pod(|world| {
        assert_eq!(world.call("ADD").without("CNI_ARGS").run().succeeds(), result("1.1.0"));
        let named = json!({"cni": {"egret": {"namespace": "ns1", "name": "p1"}}});
        world.call("ADD").without("CNI_ARGS").with("args", named).run().succeeds();
        let record = fs::read_to_string(format!("{}/net/c1:eth0.json", crate::world::RECORDS)).unwrap();
        assert!(record.contains(r#""pod":"ns1/p1""#), "{record}");
        let half = json!({"cni": {"egret": {"name": "p1"}}});
        world
            .call("ADD")
            .without("CNI_ARGS")
            .with("args", half)
            .run()
            .fails(7, &["args.cni.egret", "namespace"]);
    });
}

/// As podman calls: a container's name, and no namespace.
#[test]
fn row_4_17_a_name_without_a_namespace_is_nobody_s_pod() {
    for_every_pod(|world| {
        world.call("ADD").env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=merry_ritchie").run().succeeds();
        let named = json!({"cni": {"egret": {"namespace": "ns1", "name": "p1"}}});
        let call = world.call("ADD").env("CNI_ARGS", "K8S_POD_NAME=merry_ritchie").with("args", named);
        call.run().succeeds();
        let record = fs::read_to_string(format!("{}/net/c1:eth0.json", crate::world::RECORDS)).unwrap();
        assert!(record.contains(r#""pod":"ns1/p1""#), "{record}");
    });
}

/// It may be meant for a pod that is selected, which as nobody's would leave with the node's address.
#[test]
fn general_rule_a_pod_that_is_named_by_half_or_wrongly_is_not_wired_and_can_end() {
    for_every_pod(|world| {
        let before = world.dump();
        for (args, words) in [
            ("K8S_POD_NAMESPACE=ns1", ["K8S_POD_NAME is missing", "ns1"]),
            ("K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=", ["K8S_POD_NAME is missing", "ns1"]),
            ("K8S_POD_NAMESPACE=ns1 K8S_POD_NAME=p1", ["K8S_POD_NAME is missing", "ns1"]),
            ("K8S_POD_NAMESPACE=Ns1;K8S_POD_NAME=p1", ["K8S_POD_NAMESPACE is", "at most 63"]),
            ("K8S_POD_NAMESPACE=../ns1;K8S_POD_NAME=p1", ["K8S_POD_NAMESPACE is", "../ns1"]),
            ("K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=P_1", ["K8S_POD_NAME is", "at most 253"]),
        ] {
            let call = |verb| world.call(verb).env("CNI_ARGS", args);
            call("ADD").run().fails(4, &words);
            call("CHECK").run().fails(4, &words);
            call("DEL").run().succeeds();
        }
        let named = json!({"cni": {"egret": {"namespace": "Ns1!", "name": "p1"}}});
        let call = |verb| world.call(verb).without("CNI_ARGS").with("args", named.clone());
        call("ADD").run().fails(7, &["args.cni.egret.namespace", "Ns1!"]);
        call("DEL").run().succeeds();
        world.dump().is_as(&before);
    });
}

/// Somebody put it there; whoever opened it to read would wait for who writes into it, and with it every pod of the node.
#[test]
fn general_rule_a_pipe_among_the_records_holds_no_pod() {
    for_every_pod(|world| {
        world.add("c1"); // the folders are there
        world.call("DEL").container("c1").run().succeeds();
        let pipes = [
            "/var/lib/egret/endpoints/zz.json",
            "/var/lib/egret/nodes/zz.json",
            "/var/lib/egret/interfaces/zz.json",
            "/var/lib/egret/ipam/blue/zz.json",
            "/run/egret/n1/announced.json",
            "/run/egret/n1/attachments/net/zz:eth0.json",
        ];
        for pipe in pipes {
            fs::create_dir_all(Path::new(pipe).parent().unwrap()).unwrap();
            let _ = fs::remove_file(pipe);
            nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        world.add("c1");
        world.call("CHECK").container("c1").run();
        world.call("DEL").container("c1").run().succeeds();
        for pipe in ["/run/egret/n1/config.json", "/run/egret/n1/plan.json", "/run/egret/n1/settings.json"] {
            let _ = fs::remove_file(pipe);
            nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        world.add("c1");
        world.call("DEL").container("c1").run().succeeds();
    });
}

/// Without the right to enter it nothing is wrong with the namespace: the runtime need not start the pod anew.
#[test]
fn general_rule_without_root_the_namespace_is_not_to_blame() {
    for_a_client(|world| {
        for folder in ["/run/egret/n1/attachments/net", "/var/lib/egret/cache"] {
            fs::create_dir_all(folder).unwrap();
        }
        world.call("ADD").by_nobody().run().fails(5, &["root"]);
    });
}

#[test]
fn row_4_18_a_namespace_that_does_not_exist_is_said_and_not_made() {
    for_every_pod(|world| {
        let before = world.dump();
        for path in ["/run/netns/nowhere", "/run/nowhere/x", "/proc/1048577/ns/net"] {
            world.call("ADD").env("CNI_NETNS", path).run().fails(100, &[path]);
            assert!(!Path::new(path).exists());
        }
        world.dump().is_as(&before);
    });
}

#[test]
fn row_4_19_the_plugins_own_namespace_is_refused_before_anything_is_touched() {
    for_every_pod(|world| {
        let before = world.dump();
        for own in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            world.call("ADD").env("CNI_NETNS", own).run().fails(8, &["own network namespace"]);
            world.call("ADD").env("CNI_NETNS", own).env("CNI_NETNS_OVERRIDE", "0").run().fails(8, &[]);
        }
        world.dump().is_as(&before);
    });
    for_an_unselected_pod(|world| {
        for yes in ["1", "TRUE", "true", "True"] {
            let call = world.call("ADD").env("CNI_NETNS", "/proc/self/ns/net");
            call.env("CNI_NETNS_OVERRIDE", yes).run().succeeds();
        }
    });
}

#[test]
fn row_4_20_what_is_no_network_namespace_is_refused() {
    for_every_pod(|world| {
        // Not in /run/netns: `ip` opens whatever lies there, and would wait for ever at a pipe.
        let folder = Path::new(crate::world::SCRATCH);
        fs::write(folder.join("file"), "not a namespace").unwrap();
        nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(folder.join("uts"), "").unwrap();
        bind("/proc/thread-self/ns/uts", &folder.join("uts"));
        fs::create_dir(folder.join("folder")).unwrap();
        let before = world.dump();
        for name in ["file", "pipe", "uts", "folder"] {
            let path = folder.join(name).display().to_string();
            world.call("ADD").env("CNI_NETNS", &path).run().fails(100, &[&path]);
        }
        world.call("ADD").env("CNI_NETNS", "/dev/null").run().fails(100, &["/dev/null"]);
        world.dump().is_as(&before);
    });
}

#[test]
fn row_4_21_an_interface_that_is_missing_matters_to_check_and_to_pods_with_egress() {
    // A pod without egress must not fail for what nobody needs, nor is its namespace entered (row 4.24).
    for_an_unselected_pod(|world| {
        world.call("ADD").env("CNI_IFNAME", "eth7").run().succeeds();
        world.call("CHECK").env("CNI_IFNAME", "eth7").run().fails(101, &["eth7", "/run/netns/a"]);
    });
}

#[test]
fn row_4_21_a_pod_with_egress_needs_its_interface() {
    for_every_pod(|world| {
        if world.kind == Kind::Unselected {
            return; // the case above
        }
        let before = world.dump();
        world.call("ADD").env("CNI_IFNAME", "eth7").run().fails(101, &["eth7", "/run/netns/a"]);
        world.dump().is_as(&before);
    });
}

#[test]
fn row_4_22_add_again_changes_nothing() {
    for_every_pod(|world| {
        let first = world.add("c1");
        let (records, before) = (world.records(), world.kernel());
        for _ in 0..3 {
            assert_eq!(world.add("c1"), first);
        }
        assert_eq!(world.records(), records);
        world.kernel().is_as(&before);
        world.call("CHECK").run().succeeds();
    });
}

#[test]
fn row_4_22_add_again_with_another_namespace_takes_over() {
    for_every_pod(|world| {
        world.add("c1");
        // A runtime that lost its memory makes the sandbox anew; the old one is gone with everything in it.
        let named = |name: &str| {
            let path = format!("/run/netns/{name}");
            let mut prev = result("1.1.0");
            prev["interfaces"][1]["sandbox"] = path.as_str().into();
            (path, prev)
        };
        world.netns("b");
        world.remove_netns("a");
        wait_until("the kernel took the old sandbox apart", || !output(&["ip", "link"]).contains("vetha"));
        ip(&["link", "add", "vethb", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/b"]);
        let (path, prev) = named("b");
        world.call("ADD").env("CNI_NETNS", &path).with("prevResult", prev.clone()).run().succeeds();
        world.call("CHECK").env("CNI_NETNS", &path).with("prevResult", prev).run().succeeds();
        let (path, prev) = named("c");
        world.netns("c");
        let check = world.call("CHECK").env("CNI_NETNS", &path).with("prevResult", prev);
        check.run().fails(100, &["another network namespace"]);
    });
}

#[test]
fn row_4_23_an_add_that_fails_leaves_nothing() {
    for_every_pod(|world| {
        fs::create_dir_all("/run/egret/n1").unwrap();
        fs::write("/run/egret/n1/attachments", "a file where a folder should be").unwrap();
        let before = world.dump();
        world.call("ADD").run().fails(5, &["record", "/run/egret/n1/attachments"]);
        world.dump().is_as(&before);
    });
}

#[test]
fn row_4_24_a_pod_without_egress_costs_one_record() {
    for_an_unselected_pod(|world| {
        let before = world.kernel();
        assert_eq!(world.add("c1"), result("1.1.0"));
        world.kernel().is_as(&before);
        assert_eq!(world.records(), ["net/c1:eth0.json"]);
        // A socket says which namespace this is; nothing goes through it.
        let words = ["bind", "connect", "sendto", "sendmsg", "sendmmsg"];
        let others = ["setns", "unshare", "execve", "clone", "clone3", "vfork", "fsync", "fdatasync"];
        let calls = strace(&[&words[..], &others].concat());
        assert_eq!(calls, ["execve"], "no namespace entered, no netlink, no child, no fsync");
    });
}

/// The names of those of these system calls that an ADD makes, in order.
fn strace(names: &[&str]) -> Vec<String> {
    let stdin = fs::File::from(memory(&entry("1.1.0").to_string()));
    let run = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", &format!("trace={}", names.join(",")), "-e", "signal=none"])
        .arg(crate::world::egret())
        .envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c2"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/a"),
        ])
        .stdin(stdin)
        .output()
        .expect("needs `strace`; `scripts/tools` installs it");
    assert!(run.status.success());
    let trace = String::from_utf8(run.stderr).unwrap();
    trace.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned()).collect()
}

/// A file that holds this text, to be read from its beginning.
fn memory(text: &str) -> std::os::fd::OwnedFd {
    let path = format!("{}/stdin", crate::world::SCRATCH);
    fs::write(&path, text).unwrap();
    fs::File::open(path).unwrap().into()
}

#[test]
fn row_4_25_without_its_agent_only_who_is_provably_not_selected_starts_and_the_rest_is_told_soon() {
    for_every_pod(|world| {
        let before = world.dump();
        let start = std::time::Instant::now();
        let add = || world.call("ADD").with("mode", "cluster");
        add().run().fails(11, &["/run/egret/n1/agent.sock", "no agent was ever here", "tried again"]);
        world.dump().is_as(&before);
        // What an agent that went away leaves: what it knew, and a socket at which nobody listens.
        fs::create_dir_all("/run/egret/n1").unwrap();
        drop(std::os::unix::net::UnixListener::bind("/run/egret/n1/agent.sock").unwrap());
        let knew = json!({"egressIPSupport": "EnabledPerNamespaceOrPerPod", "exempt": ["kube-system"],
            "namespaces": {"ns1": "never", "ns2": "always"}});
        fs::write("/var/lib/egret/namespaces.n1.json", knew.to_string()).unwrap();
        let annotations = world.annotations().unwrap_or(json!({}));
        let passed = add().with("runtimeConfig", json!({ crate::world::ANNOTATIONS: annotations })).run();
        if world.kind == Kind::Unselected {
            assert_eq!(passed.succeeds(), result("1.1.0"));
            assert_eq!(world.records(), ["net/c1:eth0.json"]);
        } else {
            passed.fails(11, &["annotation", "tried again"]);
            assert!(world.records().is_empty());
        }
        let of =
            |namespace: &str| add().env("CNI_ARGS", &format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=p"));
        of("ns2").run().fails(11, &["ns2"]);
        of("ns3").run().fails(11, &["ns3"]);
        of("kube-system").run().succeeds();
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    });
}

#[test]
fn row_4_31_annotations_are_read_where_the_runtime_passes_them() {
    for_every_pod(|world| {
        let key = "io.kubernetes.cri.pod-annotations";
        world.call("ADD").with("runtimeConfig", json!({key: {"a": "b"}})).run().succeeds();
        world.call("ADD").with("runtimeConfig", json!({key: {}})).run().succeeds();
        world.call("ADD").with("runtimeConfig", json!({})).run().succeeds();
        world.call("ADD").with("runtimeConfig", json!({key: {"a": 7}})).run().fails(7, &[key]);
    });
}

#[test]
fn general_rule_g4_a_reply_that_nobody_can_read_is_no_panic() {
    for_every_pod(|world| {
        for version in ["0.3.1", "1.1.0"] {
            let broken = world.call("ADD").version(version).nobody_reads_stdout().run();
            assert_eq!((broken.exit, broken.stderr.as_str()), (1, ""), "the runtime must call DEL");
            let closed = world.call("ADD").version(version).stdout_closed().run();
            assert_eq!((closed.exit, closed.stderr.as_str()), (0, ""));
            let error = world.call("ADD").version(version).lacking("name").nobody_reads_stdout().run();
            assert_eq!((error.exit, error.stderr.as_str()), (1, ""));
            assert_eq!(world.call("DEL").version(version).nobody_reads_stdout().run().exit, 0);
        }
        assert!(identity("/run/netns/a").1 > 0);
    });
}

/// As with Multus: `eth0` and then `net1`, both chained with Egret, in one namespace.
#[test]
fn a_second_interface_of_a_gateway_pod_is_without_egress() {
    for_every_pod(|world| {
        let inside = |args: &[&str]| output(&[&["nsenter", "--net=/run/netns/a", "ip"], args].concat());
        ip(&["link", "add", "vetha2", "type", "veth", "peer", "name", "net1", "netns", "/run/netns/a"]);
        inside(&["addr", "add", "10.7.7.3/24", "dev", "net1"]);
        let mut entry = entry("1.1.0");
        entry["name"] = "second".into();
        entry["prevResult"]["interfaces"][1]["name"] = "net1".into();
        entry["prevResult"]["ips"][0]["address"] = "10.7.7.3/24".into();
        let second = |verb: &str| world.call(verb).json(entry.clone()).env("CNI_IFNAME", "net1");

        let added = world.add("c1");
        let before = (inside(&["addr"]), books());
        assert_eq!(second("ADD").run().succeeds(), entry["prevResult"]);
        if world.kind == Kind::Gateway {
            assert_eq!(before, (inside(&["addr"]), books()), "one gateway, one lease");
        }
        assert!(world.is_wired("10.1.2.3"));
        assert_eq!(world.records().len(), 2);
        for _ in 0..2 {
            world.call("CHECK").run().succeeds();
            second("CHECK").run().succeeds();
        }
        assert_eq!((world.add("c1"), second("ADD").run().succeeds()), (added, entry["prevResult"].clone()));
        second("DEL").run().succeeds();
        world.call("CHECK").run().succeeds();
        assert!(world.is_wired("10.1.2.3"), "the first interface serves on");
        world.call("DEL").run().succeeds();
        assert!(world.records().is_empty());
    });
}

/// Leases and endpoints, as they are written.
fn books() -> Vec<String> {
    let files = output(&["find", "/var/lib/egret", "-path", "*/ipam/*", "-o", "-path", "*/endpoints/*"]);
    files.lines().map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}
