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
