//! Machines on which nothing goes right: full or unusable directories, no nft, no root, a kernel without what we need.
//!
//! Given a gateway and two clients that run, and then the trouble: ADDs are refused in a sentence that says what and what to do,
//! DELs succeed, whoever runs on shows no address but the lease; and when the trouble is over, nothing is left behind.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use egret::addr::Family;
use egret::testbed::{Outside, Pod, RUN_DIR, STATE_DIR, Topology};

use crate::books::{assert_in_order, gc, reconcile_command, said, without_cooldown};
use crate::lab::{Lab, WANTS_LEASES, nodes};

/// One machine in trouble.
struct Ground {
    name: &'static str,
    spoil: fn(&Lab),
    mend: fn(&Lab),
    /// What the refusal of a new gateway must say.
    words: &'static [&'static str],
    /// What the trouble does to each call of the plugin, where it is not on the machine.
    around: Option<fn(&mut Command)>,
}

impl Ground {
    fn call(&self, lab: &Lab, verb: &str, pod: &Pod) -> Result<(), String> {
        let mut command = lab.cnitool_command(verb, pod).unwrap();
        if let Some(around) = self.around {
            around(&mut command);
        }
        let output = command.output().unwrap();
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }

    /// The whole story.
    fn play(&self, lab: &Lab) {
        let name = self.name;
        let [gateway, stays, goes] = ["gw/g", "shop/stays", "shop/goes"].map(|name| {
            let wishes = if name == "gw/g" { &WANTS_LEASES[..] } else { &[] };
            lab.pod_object(name, &[("egress-code", "red")], wishes, 1).unwrap();
            lab.add_pod(1, name).unwrap()
        });
        let leases = lab.leases(&gateway);
        let capture = lab.capture().unwrap();
        lab.pod_object("gw/new", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
        lab.pod_object("shop/new", &[], &[], 1).unwrap();
        let [new_gateway, new_client] = ["gw/new", "shop/new"].map(|name| lab.sandbox(1, name).unwrap());
        (self.spoil)(lab);

        let error = self.call(lab, "add", &new_gateway).expect_err(name);
        for word in self.words {
            assert!(error.contains(word), "{name}: no `{word}` in: {error}");
        }
        assert!(!error.contains("panicked"), "{error}");
        // A client whose binding stands may be served; else it is told why not.
        if let Err(error) = self.call(lab, "add", &new_client) {
            assert!(error.contains(self.words[0]), "{name}: no `{}` in: {error}", self.words[0]);
        }
        let seen = |pod: &Pod| Family::BOTH.map(|f| pod.udp(Outside::Near.address(f)));
        for source in seen(&stays).into_iter().flatten() {
            assert!(leases.contains(&source), "{name}: {source}");
        }
        for pod in [&new_gateway, &new_client, &goes, &gateway] {
            self.call(lab, "del", pod).unwrap_or_else(|e| panic!("{name}: DEL of {}: {e}", pod.name));
            lab.lose_pod(pod).unwrap();
        }
        for source in seen(&stays).into_iter().flatten() {
            assert!(leases.contains(&source), "{name}, without gateway: {source}");
        }
        let shown: Vec<_> =
            capture.sources_of(&stays).into_keys().filter(|ip| !leases.contains(ip)).collect();
        assert!(shown.is_empty(), "{name}: {} was seen with {shown:?}", stays.name);

        if self.name.starts_with("the state directory") {
            // A pod's end needs nothing of it: the next pod with that address is not bound to anything.
            let bound = lab.node(1).sh("nft list map inet egret binding4").unwrap();
            let ip = |pod: &Pod| format!("{} : goto", pod.address(Family::V4).unwrap());
            assert!(bound.contains(&ip(&stays)) && !bound.contains(&ip(&goes)), "{name}: {bound}");
        }

        (self.mend)(lab);
        gc(lab, 1, Some(&[&stays]));
        let output = reconcile_command(lab, 1).output().unwrap();
        assert!(output.status.success(), "{name}, afterwards: {}", said(&output));
        assert_in_order(lab, &[&stays], name);
        lab.is_held(&stays);
        lab.del_pod(&stays).unwrap();
        assert_in_order(lab, &[], name);
    }
}

/// The lab's mounts are the calling thread's own: nodes run in copies of them.
fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

/// What takes the room of a file system, in its root.
pub(crate) const FILLER: &str = "filler";

/// Leaves no page free on a file system in memory.
pub(crate) fn fill(path: &str) {
    mount(&["-o", "remount,size=4m", path]);
    let mut file = std::fs::File::create(Path::new(path).join(FILLER)).unwrap();
    let end = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(end.kind(), std::io::ErrorKind::StorageFull, "{path}: {end}");
}

pub(crate) fn empty(path: &str) {
    let filler = Path::new(path).join(FILLER);
    // A child that another story is just starting still has the file open for a moment; its pages are free at once all the same.
    std::fs::File::create(&filler).unwrap();
    std::fs::remove_file(filler).unwrap();
    mount(&["-o", "remount,size=50%", path]);
}

/// Where this lab's nodes look for the state directory; a story makes it something else.
const STATE: &str = "/run/state";

fn state_is(lead: impl FnOnce(&Path)) {
    let path = Path::new(STATE);
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
    lead(path);
}

fn state_as_ever() {
    state_is(|path| std::os::unix::fs::symlink(STATE_DIR, path).unwrap());
}

fn lab() -> Lab {
    let mut topology = Topology { settle: false, ..nodes(1) };
    topology.egret_keys.insert("stateDir".into(), STATE.into());
    topology.egret_keys.insert("lockTimeout".into(), 2000.into());
    let lab = Lab::raise(topology);
    state_as_ever();
    without_cooldown(&lab);
    lab
}

#[test]
fn directories_that_are_full_or_no_directories() {
    let lab = lab();
    let machine = |name, words, spoil, mend| Ground { name, spoil, mend, words, around: None };
    for ground in [
        machine(
            "the state directory is full",
            &["/run/state", "No space left", "free space"],
            |_| fill(STATE_DIR),
            |_| empty(STATE_DIR),
        ),
        machine(
            "the run directory is full",
            &[RUN_DIR, "No space left", "free space"],
            |_| fill("/run"),
            |_| empty("/run"),
        ),
        machine(
            "the state directory is a file",
            &["/run/state", "stateDir"],
            |_| state_is(|p| std::fs::write(p, "").unwrap()),
            |_| state_as_ever(),
        ),
        machine(
            "the state directory leads in a circle",
            &["/run/state", "stateDir"],
            |_| state_is(|p| std::os::unix::fs::symlink(p, p).unwrap()),
            |_| state_as_ever(),
        ),
    ] {
        ground.play(&lab);
    }
}

#[test]
fn nft_is_gone() {
    let lab = lab();
    let nft = "for d in /usr/sbin /usr/bin /sbin /bin /usr/local/sbin /usr/local/bin; do [ -e $d/nft ] && echo $d/nft; done; true";
    let found = Command::new("sh").args(["-c", nft]).output().unwrap();
    assert!(!found.stdout.is_empty(), "these tests need nft");
    let ground = Ground {
        name: "nft is gone",
        spoil: |_| mount(&["--bind", "/dev/null", "/usr/sbin/nft"]),
        mend: |_| assert!(Command::new("umount").arg("/usr/sbin/nft").status().unwrap().success()),
        words: &["nft is not installed", "nftables"],
        around: None,
    };
    ground.play(&lab);
}

/// The lab's plugin, started by this line of shell; gone with `/run`.
fn wrapped(line: &str) {
    let path = Path::new("/run/plugin/egret");
    std::fs::write(path.with_extension("new"), format!("#!/bin/sh\nexec {line} /run/plugin/real \"$@\"\n"))
        .unwrap();
    std::fs::set_permissions(path.with_extension("new"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

#[test]
fn the_plugin_is_not_root_or_root_without_its_powers() {
    let mut topology = Topology { settle: false, ..nodes(1) };
    topology.egret = Some("/run/plugin/egret".into());
    let lab = Lab::raise(topology);
    std::fs::create_dir("/run/plugin").unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_egret"), "/run/plugin/real").unwrap();
    wrapped("");
    without_cooldown(&lab);
    let machine = |name, words, spoil| Ground { name, spoil, mend: |_| wrapped(""), words, around: None };
    for ground in [
        machine("not root", &["root"], |_| {
            wrapped("setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all");
        }),
        machine("root without powers", &["CAP_NET_ADMIN"], |_| {
            wrapped("setpriv --inh-caps=-all --bounding-set=-all");
        }),
        machine("root that may not enter namespaces", &["CAP_SYS_ADMIN"], |_| {
            wrapped("setpriv --inh-caps=-sys_admin --bounding-set=-sys_admin");
        }),
    ] {
        ground.play(&lab);
    }
}

/// As a kernel without nftables answers: no such protocol (`socket(AF_NETLINK, …, NETLINK_NETFILTER)`).
fn without_netfilter(command: &mut Command) {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    // struct seccomp_data: number at 0, arguments of eight bytes from 16 on.
    let program = [
        step(load, 0, 0, 0),
        step(equal, 0, 5, libc::SYS_socket as u32),
        step(load, 0, 0, 16),
        step(equal, 0, 3, libc::AF_NETLINK as u32),
        step(load, 0, 0, 32),
        step(equal, 0, 1, libc::NETLINK_NETFILTER as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = move || {
        let all = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call, which copies it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const all) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call on memory prepared before the fork.
    unsafe { command.pre_exec(filter) };
}

/// Where nothing was wired before, everything is asked for at once; and who wants no egress is served anywhere.
#[test]
fn a_kernel_that_never_had_nftables() {
    let lab = lab();
    lab.pod_object("gw/g", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
    for (name, refused) in [("gw/g", true), ("shop/c", true), ("plain/p", false)] {
        let pod = lab.sandbox(1, name).unwrap();
        let mut add = lab.cnitool_command("add", &pod).unwrap();
        without_netfilter(&mut add);
        let output = add.output().unwrap();
        assert_eq!(output.status.success(), !refused, "{name}: {}", said(&output));
        let words = ["load the module nf_conntrack_netlink", "load the module nfnetlink"];
        assert!(
            !refused || words.iter().any(|word| said(&output).contains(word)),
            "{name}: {}",
            said(&output)
        );
        let mut del = lab.cnitool_command("del", &pod).unwrap();
        without_netfilter(&mut del);
        let output = del.output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        lab.lose_pod(&pod).unwrap();
    }
    let left =
        lab.node(1).sh("ip -o link show group 4097; ip rule show priority 799; nft list tables").unwrap();
    assert!(!left.contains("egret") && !left.contains("eg"), "{left}");
    assert_in_order(&lab, &[], "a kernel that never had nftables");
}

#[test]
fn a_kernel_without_nftables() {
    let lab = lab();
    let ground = Ground {
        name: "a kernel without nftables",
        spoil: |_| {},
        mend: |_| {},
        words: &["nf_conntrack_netlink"],
        around: Some(without_netfilter),
    };
    ground.play(&lab);
}
