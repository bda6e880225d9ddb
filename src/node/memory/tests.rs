//! What a node remembers, torn and lost.

use super::*;

#[test]
fn settings_that_cannot_be_read_are_named_and_kept_beside_the_new_ones() {
    let dir = std::env::temp_dir().join(format!("egret-memory-{}", std::process::id()));
    let memory = Memory::new(&dir, "n1");
    let settings = SavedSettings::from([("net/ipv4/x".to_owned(), "0".to_owned())]);
    memory.save_settings(&settings).unwrap();
    assert_eq!((memory.torn_settings(), memory.saved_settings()), (None, settings.clone()));

    let file = memory.dir().join(SETTINGS);
    fs::write(&file, "{\"net/ipv4/x\": ").unwrap();
    let problem = memory.torn_settings().unwrap();
    assert_eq!(problem.file, file.display().to_string());
    assert!(problem.message.contains("will not give them back"), "{problem}");
    assert!(memory.saved_settings().is_empty());

    memory.save_settings(&settings).unwrap();
    assert_eq!((memory.torn_settings(), memory.saved_settings()), (None, settings));
    assert!(fs::read_to_string(memory.dir().join("settings.torn")).unwrap().ends_with(": "));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn settings_that_are_gone_from_a_wired_node_are_missed_also_when_there_were_none() {
    let dir = std::env::temp_dir().join(format!("egret-memory-gone-{}", std::process::id()));
    let memory = Memory::new(&dir, "n1");
    assert_eq!(memory.torn_settings(), None, "never wired");
    let plan = NodePlan::empty(crate::egress::tests::worlds::World::new().here);
    memory.intend(1, &plan).unwrap();
    memory.applied_as_intended(1, false).unwrap();
    assert_eq!((memory.torn_settings(), memory.saved_settings()), (None, SavedSettings::new()));

    fs::remove_file(memory.dir().join(SETTINGS)).unwrap();
    memory.intend(2, &plan).unwrap();
    let problem = memory.torn_settings().unwrap();
    assert!(problem.message.contains("are lost (the file is gone)"), "{problem}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn who_lives_on_writes_a_configuration_that_is_another_one_or_was_changed_by_hand_and_no_other() {
    let dir = std::env::temp_dir().join(format!("egret-memory-config-{}", std::process::id()));
    let memory = Memory::new(&dir, "n1").keeping(&Arc::default());
    let file = memory.dir().join(CONFIG);
    let one = Config::default();
    memory.remember_config(&one).unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
    let first = inode();
    memory.remember_config(&one).unwrap();
    assert_eq!((inode(), memory.config()), (first, Some(one.clone())));
    fs::write(&file, "{").unwrap();
    memory.remember_config(&one).unwrap();
    assert_eq!(memory.config(), Some(one.clone()));
    let other = Config { lock_timeout: one.lock_timeout + 1, ..one };
    memory.remember_config(&other).unwrap();
    assert_eq!(memory.config(), Some(other.clone()));
    fs::remove_file(&file).unwrap();
    memory.remember_config(&other).unwrap();
    assert_eq!(memory.config(), Some(other));
    fs::remove_dir_all(dir).unwrap();
}

/// A plan whose nodes are many, and their file's name.
fn large(first: u16) -> (NodePlan, String) {
    let mut plan = NodePlan::empty(crate::egress::tests::worlds::World::new().here);
    for number in first..first + 100 {
        let wire = std::net::Ipv4Addr::from(u32::from(number));
        let peer = crate::egress::plan::Peer { number, wire, underlay: vec![[10, 0, 0, 1].into()] };
        plan.nodes.insert(format!("node-{number}"), peer);
    }
    let name = plan.nodes.apart().unwrap().unwrap().0.to_owned();
    (plan, name)
}

#[test]
fn many_nodes_are_written_once_and_read_with_every_plan_that_names_them() {
    let dir = std::env::temp_dir().join(format!("egret-memory-nodes-{}", std::process::id()));
    let (here, other) = (Memory::new(&dir, "n1").keeping(&Arc::default()), Memory::new(&dir, "n1"));
    let read = |inputs, plan: &NodePlan| {
        for memory in [&here, &other, &Memory::new(&dir, "n1").keeping(&Arc::default())] {
            assert_eq!(memory.applied(), Some(Applied { inputs, plan: plan.clone() }));
        }
    };
    let ((one, first), (two, second)) = (large(1), large(2));
    for inputs in [1, 2] {
        here.intend(inputs, &one).unwrap();
        assert_eq!(other.intended().as_ref(), Some(&one));
        here.applied_as_intended(inputs, false).unwrap();
        read(inputs, &one);
    }
    let text = fs::read_to_string(here.dir().join(PLAN)).unwrap();
    assert!(text.contains(&first) && !text.contains("node-7"), "{text}");

    here.intend(3, &two).unwrap();
    read(2, &one); // both files are there while both are named
    here.applied_as_intended(3, false).unwrap();
    read(3, &two);
    let (three, third) = large(3);
    other.intend(4, &three).unwrap();
    let is_there = |name: &str| here.dir().join(name).exists();
    assert_eq!([&first, &second, &third].map(|name| is_there(name)), [false, true, true]);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_plan_of_an_earlier_release_is_read_and_one_whose_nodes_are_lost_is_none() {
    let dir = std::env::temp_dir().join(format!("egret-memory-lost-{}", std::process::id()));
    let memory = Memory::new(&dir, "n1");
    let (plan, name) = large(1);
    let inline = serde_json::json!({"inputs": 7, "plan": plan});
    assert!(inline["plan"]["nodes"].is_object());
    memory.tell(PLAN, &inline).unwrap();
    assert_eq!(memory.applied(), Some(Applied { inputs: 7, plan: plan.clone() }));

    memory.intend(8, &plan).unwrap();
    memory.applied_as_intended(8, false).unwrap();
    fs::remove_file(memory.dir().join(&name)).unwrap();
    assert_eq!(memory.applied(), None);
    memory.intend(9, &plan).unwrap();
    assert_eq!(memory.intended(), Some(plan), "its next writer writes them, too");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_plan_that_nobody_can_read_may_have_clients_until_nothing_stands() {
    let dir = std::env::temp_dir().join(format!("egret-memory-unread-{}", std::process::id()));
    let memory = Memory::new(&dir, "n1");
    assert!(!memory.serves_pods(), "never wired");
    let plan = NodePlan::empty(crate::egress::tests::worlds::World::new().here);
    memory.intend(1, &plan).unwrap();
    memory.applied_as_intended(1, true).unwrap();
    assert!(!memory.serves_pods(), "an idle plan");
    memory.nothing_stands().unwrap();
    assert!(memory.was_applied(), "what can be read is what stands");

    for unread in
        [&b"{\"inputs\": 1, \"plan\": "[..], b"{\"inputs\": 1, \"plan\": {\"of\": \"another release\"}}", b""]
    {
        fs::write(memory.dir().join(PLAN), unread).unwrap();
        assert!(memory.serves_pods(), "{unread:?}");
    }
    memory.nothing_stands().unwrap();
    assert!(!memory.was_applied() && !memory.serves_pods());
    fs::remove_dir_all(dir).unwrap();
}
