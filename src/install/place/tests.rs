//! Folders of a node as programs leave them, and what becomes of them.

use serde_json::json;

use super::*;

struct Node(Place);

impl Node {
    fn new(name: &str) -> Node {
        let root = std::env::temp_dir().join(format!("egret-place-{name}-{}", std::process::id()));
        let place = Place { bin: root.join("bin"), conf: root.join("conf"), list: None };
        fs::create_dir_all(&place.conf).unwrap();
        Node(place)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.conf.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.conf.join(name)).unwrap()
    }

    fn take(&self) -> usize {
        let mut changes = Vec::new();
        self.0.take_entries(&mut changes).unwrap();
        changes.len()
    }

    fn put(&self) -> Result<&'static str, String> {
        let entry = json!({"type": "egret"});
        self.0.put_entry(&entry).map(|changes| changes[0].what).map_err(|e| e.to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.conf.parent().unwrap());
    }
}

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}"#;

#[test]
fn the_entry_goes_into_the_first_list_that_a_runtime_would_take_and_out_of_it_again() {
    let node = Node::new("first");
    assert!(node.put().unwrap_err().contains("install the cluster's network first"));
    node.write("05-half.conflist", "{");
    assert!(node.put().unwrap_err().contains("05-half.conflist is no JSON"));
    node.write("10-net.conflist", LIST);
    node.write("20-other.conflist", LIST);
    node.write("README", "notes");
    assert_eq!(node.put(), Ok("entered"));
    assert_eq!(node.put(), Ok("unchanged"));
    assert!(node.read("10-net.conflist").contains("egret"));
    assert_eq!(
        (node.read("20-other.conflist").as_str(), node.read("05-half.conflist").as_str()),
        (LIST, "{")
    );
    // The primary starts anew and writes its list as it knows it.
    node.write("10-net.conflist", LIST);
    assert_eq!(node.put(), Ok("entered"));
    assert_eq!(node.take(), 1);
    assert!(!node.read("10-net.conflist").contains("egret"));
    assert_eq!(node.take(), 0);
    let names: Vec<_> = fs::read_dir(&node.0.conf).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "no draft is left: {names:?}");
}

#[test]
fn a_plugin_that_stands_alone_gets_a_list_of_ours_until_it_has_one_of_its_own() {
    let node = Node::new("alone");
    node.write("10-net.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#);
    assert_eq!((node.put(), node.put()), (Ok("entered"), Ok("unchanged")));
    assert!(node.read(WRAPPED).contains("bridge"));
    node.write("10-net.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "ptp"}"#);
    assert_eq!(node.put(), Ok("entered"));
    assert!(node.read(WRAPPED).contains("ptp"));
    fs::remove_file(node.0.conf.join("10-net.conf")).unwrap();
    node.write("10-net.conflist", LIST);
    assert_eq!(node.put(), Ok("entered"));
    assert!(!node.0.conf.join(WRAPPED).exists());
}

#[test]
fn behind_multus_the_entry_goes_into_the_list_that_multus_hands_pods_on_to() {
    let node = Node::new("multus");
    let multus = |more: &str| {
        format!(r#"{{"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus-shim"{more}}}"#)
    };
    node.write("00-multus.conf", &multus(""));
    assert!(node.put().unwrap_err().contains("name it with --list"));
    node.write("10-net.conflist", LIST);
    // As an earlier Egret made it; whoever starts by it hands pods to itself.
    node.write(
        WRAPPED,
        r#"{"cniVersion": "0.3.1", "name": "multus-cni-network", "plugins": [{"type": "multus-shim"}]}"#,
    );
    assert_eq!((node.put(), node.put()), (Ok("entered"), Ok("unchanged")));
    assert!(node.read("10-net.conflist").contains("egret"));
    assert_eq!(node.read("00-multus.conf"), multus(""), "it is Multus's");
    assert!(!node.0.conf.join(WRAPPED).exists(), "Multus would take it for the primary's");
    // What it hands pods on to is elsewhere: an entry here would have no effect, and seem to have one.
    node.write("00-multus.conf", &multus(r#", "clusterNetwork": "/run/multus/cni/net.d/10-far.conflist""#));
    assert!(node.put().unwrap_err().contains("00-multus.conf, which is Multus's"));
}

#[test]
fn a_plugin_that_stands_alone_behind_multus_gets_no_list_that_nobody_would_take() {
    let mut node = Node::new("multus-alone");
    node.write("00-multus.conf", r#"{"cniVersion": "0.3.1", "name": "m", "type": "multus"}"#);
    node.write("10-net.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#);
    let refused = node.put().unwrap_err();
    assert!(refused.contains("10-net.conf is one plugin alone") && refused.contains("--list"), "{refused}");
    let before = node.0.has_room(&json!({"type": "egret"})).unwrap_err().to_string();
    assert_eq!(before, refused, "said before anything is written");
    // Multus named by hand is no way around.
    node.0.list = Some("00-multus.conf".to_owned());
    assert!(node.put().unwrap_err().contains("00-multus.conf is one plugin alone"));
    assert!(!node.0.conf.join(WRAPPED).exists());
    node.write("05-net.conflist", LIST);
    node.0.list = Some("05-net.conflist".to_owned());
    assert_eq!(node.put(), Ok("entered"));
}

#[test]
fn a_list_of_ours_stays_until_the_entry_stands_elsewhere() {
    let mut node = Node::new("swap");
    node.write("10-net.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#);
    assert_eq!(node.put(), Ok("entered"));
    let ours = node.read(WRAPPED);
    node.write("10-net.conflist", LIST);
    fs::remove_file(node.0.conf.join("10-net.conf")).unwrap();
    // Where the draft would be written.
    let in_the_way = node.0.conf.join(".10-net.conflist.egret-draft");
    fs::create_dir(&in_the_way).unwrap();
    assert!(node.put().unwrap_err().contains("cannot write"));
    assert_eq!(node.read(WRAPPED), ours, "else pods would start without us");
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(node.put(), Ok("entered"));
    assert!(!node.0.conf.join(WRAPPED).exists());
    node.write(WRAPPED, &ours);
    node.0.list = Some(WRAPPED.to_owned());
    assert_eq!(node.put(), Ok("unchanged"));
    assert_eq!(node.read(WRAPPED), ours, "named by hand, it is the one that is meant");
    node.0.list = None;
    // As somebody leaves it who ends between the two.
    assert_eq!(node.put(), Ok("unchanged"));
    assert!(!node.0.conf.join(WRAPPED).exists());
}

#[test]
fn a_list_that_cannot_be_read_is_passed_over() {
    let node = Node::new("unread");
    node.write("10-net.conflist", LIST);
    // A file that the kernel lets nobody read.
    std::os::unix::fs::symlink("/sys/bus/platform/uevent", node.0.conf.join("20-far.conflist")).unwrap();
    assert_eq!(node.put(), Ok("entered"));
    fs::remove_file(node.0.conf.join("10-net.conflist")).unwrap();
    let refused = node.put().unwrap_err();
    assert!(refused.contains("cannot read") && refused.contains("20-far.conflist"), "{refused}");
}

#[test]
fn nobody_waits_for_who_writes_into_a_pipe() {
    let mut node = Node::new("pipe");
    let pipe = |path: PathBuf| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    pipe(node.0.conf.join("10-net.conflist"));
    node.0.list = Some("10-net.conflist".to_owned());
    assert!(node.put().unwrap_err().contains("10-net.conflist: it is no file but a pipe"));
    node.0.list = None;
    node.write("10-net.conf", r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#);
    pipe(node.0.conf.join(WRAPPED));
    assert_eq!((node.put(), node.put()), (Ok("entered"), Ok("unchanged")));
    let program = node.0.conf.join("program");
    fs::write(&program, "one").unwrap();
    pipe(node.0.binary());
    assert_eq!(node.0.put_binary(&program).unwrap().what, "installed");
    assert_eq!(fs::read_to_string(node.0.binary()).unwrap(), "one");
}

#[test]
fn the_binary_is_replaced_only_if_it_differs_and_by_a_new_file() {
    let node = Node::new("binary");
    let program = node.0.conf.join("program");
    fs::write(&program, "one").unwrap();
    assert_eq!(node.0.put_binary(&program).unwrap().what, "installed");
    assert_eq!(node.0.put_binary(&program).unwrap().what, "unchanged");
    let before = fs::metadata(node.0.binary()).unwrap().ino();
    fs::write(&program, "two").unwrap();
    assert_eq!(node.0.put_binary(&program).unwrap().what, "installed");
    assert_ne!(fs::metadata(node.0.binary()).unwrap().ino(), before);
    fs::set_permissions(node.0.binary(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(node.0.put_binary(&program).unwrap().what, "installed", "nobody could start it");
    assert!(node.0.take_binary().unwrap().is_some());
    assert!(node.0.take_binary().unwrap().is_none());
}
