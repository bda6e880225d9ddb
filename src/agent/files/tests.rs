//! A directory that changes, and what is heard of it.

use super::*;
use crate::store::dir::tests::scratch;

fn files(root: &Path) -> (Files, Dir) {
    let dir = Dir::open(root.join("state")).unwrap();
    fs::create_dir_all(root.join("run/attachments/net")).unwrap();
    let mut files = Files::open().unwrap();
    files.watch(&dir, &root.join("run"), &BTreeSet::new());
    (files, dir)
}

#[test]
fn a_file_counts_when_it_is_closed_renamed_or_removed() {
    let (root, _clean) = scratch();
    let (mut files, dir) = files(&root);
    let path = dir.objects().join("pod.yaml");
    let mut writer = fs::File::create(&path).unwrap();
    files.listen(); // a link would appear like this, so making it counts once
    io::Write::write_all(&mut writer, b"kind: Pod").unwrap();
    assert_eq!(files.listen(), BTreeSet::new());
    drop(writer);
    assert_eq!((files.listen(), files.whole), (BTreeSet::from([Job::Update]), false));
    fs::write(dir.objects().join(".new"), "").unwrap();
    fs::rename(dir.objects().join(".new"), &path).unwrap();
    assert_eq!((files.listen(), files.whole), (BTreeSet::from([Job::Update]), true));
    fs::rename(&path, dir.objects().join("other.yaml")).unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Update]));
    fs::remove_file(dir.objects().join("other.yaml")).unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Update]));
    fs::write(dir.objects().join(".other.yaml.swp"), "").unwrap();
    assert_eq!(files.listen(), BTreeSet::new());
}

#[test]
fn a_new_folder_is_watched_once_looked_at_and_a_vanished_directory_is_said() {
    let (root, _clean) = scratch();
    let (mut files, dir) = files(&root);
    let inner = dir.objects().join("shop/deep");
    fs::create_dir_all(&inner).unwrap();
    assert!(files.listen().contains(&Job::Folder));
    files.watch(&dir, &root.join("run"), &BTreeSet::new());
    fs::write(inner.join("pod.yaml"), "").unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Update]));
    fs::rename(root.join("state"), root.join("away")).unwrap();
    assert!(files.listen().contains(&Job::Folder));
    fs::rename(root.join("away"), root.join("state")).unwrap();
    files.watch(&dir, &root.join("run"), &BTreeSet::new());
    files.listen();
    fs::write(inner.join("pod.yaml"), "x").unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Update]));
}

#[test]
fn it_is_told_which_files_changed_and_that_all_must_be_looked_at_where_more_did() {
    let (root, _clean) = scratch();
    let objects = root.join("state/objects");
    fs::create_dir_all(objects.join("shop")).unwrap();
    let (mut files, dir) = files(&root);
    assert_eq!(files.told.take(), None, "nobody has looked yet");
    fs::write(objects.join("shop/pod.yaml"), "").unwrap();
    fs::write(objects.join(".draft"), "").unwrap();
    fs::write(dir.endpoints().join("one.json"), "").unwrap();
    fs::rename(objects.join(".draft"), objects.join("pool.yaml")).unwrap();
    files.listen();
    let told = ["pool.yaml", "shop/pod.yaml"].map(PathBuf::from).into();
    assert_eq!((files.told.take(), files.told.take()), (Some(told), Some(BTreeSet::new())));
    fs::create_dir(objects.join("new")).unwrap();
    files.listen();
    assert_eq!(files.told.take(), None);
    assert!(files.watch(&dir, &root.join("run"), &BTreeSet::new()));
    assert_eq!(files.told.take(), None, "what came before it was watched");
    // A folder that is reached by two ways has no one path.
    std::os::unix::fs::symlink(objects.join("shop"), objects.join("link")).unwrap();
    files.watch(&dir, &root.join("run"), &BTreeSet::new());
    files.listen();
    files.told.take();
    fs::write(objects.join("shop/pod.yaml"), "x").unwrap();
    files.listen();
    assert_eq!(files.told.take(), None);
}

#[test]
fn other_calls_are_noticed_by_the_plan_and_the_records_they_leave() {
    let (root, _clean) = scratch();
    let (mut files, _dir) = files(&root);
    let run = root.join("run");
    fs::write(run.join("settings.json"), "").unwrap();
    assert_eq!(files.listen(), BTreeSet::new());
    fs::write(run.join(".plan"), "").unwrap();
    fs::rename(run.join(".plan"), run.join("plan.json")).unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Recall]));
    fs::write(run.join("attachments/net/c1:eth0.json"), "").unwrap();
    assert_eq!(files.listen(), BTreeSet::from([Job::Recall]));
}

#[test]
fn a_folder_holds_objects_or_it_does_not() {
    let (root, _clean) = scratch();
    assert!(!holds_objects(&root));
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/README"), "").unwrap();
    assert!(!holds_objects(&root));
    fs::write(root.join("a/b/x.yaml"), "").unwrap();
    assert!(holds_objects(&root));
    assert!(holds_objects(&root.join("nowhere")));
}
