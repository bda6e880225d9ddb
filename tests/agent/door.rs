//! `mode: cluster` in the list: the plugin asks, the agent does. And what happens while nobody answers.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use egret::testbed::{STATE_DIR, Topology};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::{Lab, SELECTS_RED, eventually, leaves_by};

fn lab(nodes: u8) -> Lab {
    let keys = json!({"mode": "cluster"}).as_object().unwrap().clone();
    Lab::with(Topology { nodes, egret_keys: keys, runtime_annotations: true, ..Topology::default() })
}

/// What the runtime's STATUS gets on a node: the exit status, the error, and how long it took.
fn status(lab: &Lab, node: u8) -> (i32, Value, Duration) {
    let list: Value = serde_json::from_slice(&std::fs::read(lab.conflist_path(node)).unwrap()).unwrap();
    let entry = list["plugins"].as_array().unwrap().iter().find(|p| p["type"] == "egret").unwrap();
    let mut entry = entry.clone();
    entry["name"] = "pods".into();
    entry["cniVersion"] = "1.1.0".into();
    let network = lab.node(node).netns().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command.env("CNI_COMMAND", "STATUS").stdin(Stdio::piped()).stdout(Stdio::piped());
    // SAFETY: between fork and exec one system call is made, on a descriptor opened before.
    unsafe {
        command.pre_exec(move || {
            let entered = libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET);
            if entered == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(entry.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), error, began.elapsed())
}

#[test]
fn pods_are_wired_by_the_agent_and_without_one_only_those_start_that_nothing_selects() {
    let lab = lab(2);
    let (exit, error, _) = status(&lab, 2);
    assert_eq!((exit, &error["code"]), (1, &50.into()), "nobody was ever here: {error}");
    lab.pod_object("shop/early", &[], &[("a", "b")], 2).unwrap();
    let refused = lab.add_pod(2, "shop/early").expect_err("nothing is known of this pod").to_string();
    assert!(refused.contains("no agent was ever here"), "{refused}");

    let mut agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the client leaves by its gateway", || leaves_by(&lab, &client, &gateway));
    assert_eq!(status(&lab, 2).0, 0);
    lab.del_pod(&client).unwrap();
    assert!(!lab.differs(2).contains("cart"), "DEL was done");
    let client = lab.client(2, "cart");
    eventually("and again", || leaves_by(&lab, &client, &gateway));

    drop(agents.pop());
    lab.pod_object("shop/late", &[], &SELECTS_RED, 2).unwrap();
    let refused = lab.add_pod(2, "shop/late").expect_err("it would leave as itself").to_string();
    assert!(
        refused.contains("annotation egress.projectcalico.org/") && refused.contains("tried again"),
        "{refused}"
    );
    lab.pod_object("shop/plain", &[], &[("a", "b")], 2).unwrap();
    let plain = lab.add_pod(2, "shop/plain").unwrap();
    assert_eq!(status(&lab, 2).0, 0, "nothing is evicted while an agent is upgraded");
    assert!(leaves_by(&lab, &client, &gateway), "what runs is not touched");

    // The next agent knows who came meanwhile.
    agents.push(lab.agent(2));
    lab.select(&plain, true);
    eventually("a pod that started unasked follows its annotations", || leaves_by(&lab, &plain, &gateway));
    lab.del_pod(&plain).unwrap();
    lab.del_pod(&client).unwrap();
    eventually("nothing of them is left", || lab.differs(2).is_empty());
}

#[test]
fn a_pod_that_ended_while_the_agent_was_away_is_forgotten_by_the_next_one() {
    let lab = lab(1);
    let mut agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    eventually("the client leaves by its gateway", || leaves_by(&lab, &client, &gateway));
    drop(agents.pop());
    lab.del_pod(&client).unwrap();
    let agent = lab.agent(1);
    let record = agent.directory().join("plan.json");
    let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
    eventually("its address is nobody's", || {
        let plan = std::fs::read_to_string(&record).unwrap();
        addresses.iter().all(|ip| !plan.contains(&format!("\"{ip}\"")))
    });
}

#[test]
fn an_agent_that_hangs_keeps_no_status_waiting_and_who_is_not_root_is_not_heard() {
    let lab = lab(1);
    let agent = lab.agent(1);
    agent.signal(Signal::SIGSTOP);
    let (exit, error, took) = status(&lab, 1);
    agent.signal(Signal::SIGCONT);
    assert_eq!(exit, 0, "{error}");
    assert!(took < Duration::from_secs(20), "{took:?}");

    let path = agent.directory().join("agent.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Were it open for all, it would still ask who comes.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = std::thread::spawn(move || {
        // The system call itself changes this thread alone.
        // SAFETY: it takes numbers only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, 65534, -1) }, 0);
        let mut stream = UnixStream::connect(path).unwrap();
        let _ = stream.write_all(b"{\"protocol\":1,\"variables\":19,\"stdin\":2}\nCNI_COMMAND=STATUS\0{}");
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        said
    });
    assert_eq!(said.join().unwrap(), b"");
    eventually("it is logged", || agent.log().contains("of user 65534 asked, not root"));
    std::fs::remove_file(agent.directory().join("agent.sock")).unwrap();
    eventually("a socket that was deleted is made again", || {
        status(&lab, 1).0 == 0 && agent.directory().join("agent.sock").exists()
    });
}

/// Leases of a cluster are the agent's affair: whoever mends a node by hand leaves them to it, and hears what was mended.
#[test]
fn reconcile_by_hand_mends_a_node_whose_leases_are_kept_in_a_cluster() {
    let lab = lab(1);
    let _agent = lab.agent(1);
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    let list = lab.conflist_path(1).display().to_string();
    lab.node(1).sh("ip rule del pref 799").unwrap();
    let mended = lab.egret(1, &["reconcile", "--config", &list]).unwrap();
    let said = String::from_utf8_lossy(&[mended.stdout, mended.stderr].concat()).into_owned();
    assert!(mended.status.success(), "{said}");
    assert!(leaves_by(&lab, &client, &gateway));
}

/// Without an agent nobody writes the copy of a cluster again that lost a file. Whoever reconciles by hand then is refused, and lets nobody go.
#[test]
fn reconcile_by_hand_does_not_go_by_a_copy_of_a_cluster_that_lacks_a_file() {
    let lab = lab(1);
    let agent = lab.agent(1);
    let gateway = lab.gateway(1, "red");
    let annotations: serde_json::Map<_, _> =
        SELECTS_RED.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect();
    let chosen = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chosen", "annotations": annotations}});
    let copy = std::path::Path::new(STATE_DIR).join("objects/cluster/Namespace.json");
    std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
    std::fs::write(&copy, json!({"apiVersion": "v1", "kind": "List", "items": [chosen]}).to_string())
        .unwrap();
    std::fs::write(format!("{STATE_DIR}/synced"), "Namespace.json\nthese are all\n").unwrap();
    lab.pod_object("chosen/cart", &[], &[], 1).unwrap();
    let client = lab.add_pod(1, "chosen/cart").unwrap();
    assert!(leaves_by(&lab, &client, &gateway));
    drop(agent);
    std::fs::remove_file(&copy).unwrap();
    let list = lab.conflist_path(1).display().to_string();
    let refused = lab.egret(1, &["reconcile", "--config", &list]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("Namespace.json is missing or damaged"), "{said}");
    assert!(leaves_by(&lab, &client, &gateway));
}
