//! Records are written, found, and lost as the module says.

use super::*;
use crate::store::looks::tests::settle;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("egret-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn records(&self) -> Attachments {
        Attachments::of_node(&self.0, "n1")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn attachment(container_id: &str, ifname: &str) -> Attachment {
    Attachment {
        network: "net".to_owned(),
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
        netns: "/run/netns/a".into(),
        dev: 4,
        inode: 4026531840,
        pod: Some(PodName::new("shop", "cart")),
        uid: None,
        addresses: vec!["10.0.0.5".parse().unwrap()],
        networks: Vec::new(),
        annotations: None,
        seen: 0,
        since: 0,
        gateway: false,
        host_interface: None,
        host_index: 0,
        last: LastSeen::default(),
    }
}

#[test]
fn an_attachment_knows_its_name() {
    let one = attachment("c1", "eth0");
    assert!(one.is_named(&one.id().to_string()));
    for other in [attachment("c1", "eth1"), attachment("c", "eth0")] {
        assert!(!one.is_named(&other.id().to_string()), "{}", other.id());
    }
    assert!(!one.is_named("") && !one.is_named(&format!("{}/", one.id())));
}

#[test]
fn a_record_is_revised_where_it_is_and_never_made_again() {
    let folder = Folder::new("revised");
    let records = folder.records();
    let one = attachment("c1", "eth0");
    let wire = |record: &mut Attachment| record.is_wired_by(End { name: "cali1".to_owned(), index: 7 });
    assert!(!records.revise(&one.id(), wire).unwrap());
    records.write(&one).unwrap();
    assert!(records.revise(&one.id(), wire).unwrap());
    let found = records.read(&one.id()).unwrap().unwrap();
    assert_eq!(found.host_end(), Some(End { name: "cali1".to_owned(), index: 7 }));
    // Gone between the look and the exchange.
    let goes = |_: &mut Attachment| assert!(records.remove(&one.id()).unwrap());
    assert!(!records.revise(&one.id(), goes).unwrap());
    assert_eq!(records.list(None).unwrap(), Listing::default());
    assert_eq!(fs::read_dir(folder.0.join("n1/attachments/net")).unwrap().count(), 0, "no draft is left");
}

#[test]
fn a_record_is_read_as_it_was_written_and_removed_once() {
    let folder = Folder::new("record");
    let records = folder.records();
    let one = attachment("c1", "eth0");
    assert_eq!(records.read(&one.id()), Ok(None));
    records.write(&one).unwrap();
    records.write(&one).unwrap();
    assert_eq!(records.read(&one.id()), Ok(Some(one.clone())));
    assert_eq!(records.list(None).unwrap().attachments, std::slice::from_ref(&one));
    assert!(records.remove(&one.id()).unwrap());
    assert!(!records.remove(&one.id()).unwrap());
    assert_eq!(records.list(None).unwrap(), Listing::default());
}

#[test]
fn names_that_look_alike_do_not_meet() {
    let folder = Folder::new("alike");
    let (one, two) = (attachment("a-b", "c"), attachment("a", "b-c"));
    folder.records().write(&one).unwrap();
    folder.records().write(&two).unwrap();
    assert_eq!(folder.records().read(&one.id()), Ok(Some(one)));
    assert_eq!(folder.records().read(&two.id()), Ok(Some(two)));
}

#[test]
fn a_torn_or_foreign_record_is_named_and_the_rest_is_read() {
    let folder = Folder::new("torn");
    let records = folder.records();
    records.write(&attachment("c1", "eth0")).unwrap();
    let network = records.folder().join("net");
    fs::write(network.join("c2:eth0.json"), "{\"network\":").unwrap();
    fs::copy(network.join("c1:eth0.json"), network.join("c3:eth0.json")).unwrap();
    fs::write(network.join("README"), "not ours").unwrap();
    let listing = records.list(Some("net")).unwrap();
    assert_eq!(listing.attachments.len(), 1);
    let torn: Vec<String> = listing.torn.iter().map(|(id, problem)| format!("{id}: {problem}")).collect();
    assert!(torn[0].contains("c2:eth0.json") && torn[0].contains("EOF"), "{torn:?}");
    assert!(torn[1].contains("c3") && torn[1].contains("it speaks of net/c1/eth0"), "{torn:?}");
}

#[test]
fn a_draft_left_by_a_killed_writer_harms_nobody() {
    let folder = Folder::new("draft");
    let records = folder.records();
    let one = attachment("c1", "eth0");
    fs::create_dir_all(records.folder().join("net")).unwrap();
    fs::write(records.draft(&one.id()), "x".repeat(5000)).unwrap();
    assert_eq!(records.list(None).unwrap(), Listing::default());
    records.write(&one).unwrap();
    assert_eq!(records.read(&one.id()), Ok(Some(one.clone())));
    fs::write(records.draft(&one.id()), "half").unwrap();
    records.remove(&one.id()).unwrap();
    assert_eq!(fs::read_dir(records.folder().join("net")).unwrap().count(), 0);
}

#[test]
fn writers_of_one_attachment_at_the_same_time_leave_one_whole_record() {
    let folder = Folder::new("race");
    let last = Arc::new(LastRecords::default());
    let (records, agents) = (folder.records(), folder.records().keeping(&last));
    std::thread::scope(|threads| {
        for writer in 0u64..8 {
            let (records, last) = (if writer % 2 == 0 { &records } else { &agents }, &last);
            threads.spawn(move || {
                for _ in 0..50 {
                    last.tidy();
                    let mut one = attachment("c1", "eth0");
                    one.inode = writer;
                    one.addresses = vec![one.addresses[0]; usize::try_from(writer).unwrap() * 20];
                    records.write(&one).unwrap();
                    assert!(records.read(&one.id()).unwrap().is_some());
                }
            });
        }
    });
    let left = fs::read_dir(records.folder().join("net")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name != ".spare").count(), 1);
}

#[test]
fn a_namespace_is_gone_only_when_that_is_proven() {
    let folder = Folder::new("gone");
    let file = folder.0.join("ns");
    fs::write(&file, "").unwrap();
    let meta = fs::metadata(&file).unwrap();
    let mut one =
        Attachment { netns: file.clone(), dev: meta.dev(), inode: meta.ino(), ..attachment("c1", "eth0") };
    assert!(!one.netns_is_gone());
    one.inode += 1;
    assert!(!one.netns_is_gone(), "a plain file lies there, which proves nothing");
    one.netns = "/proc/self/ns/net".into();
    assert!(one.netns_is_gone(), "another namespace lies there");
    one.netns = folder.0.join("other");
    assert!(one.netns_is_gone(), "the folder is there, the name is not");
    one.netns = folder.0.join("no-folder/ns");
    assert!(!one.netns_is_gone(), "the folder is not there: another mount namespace?");
    one.netns = "/proc/1048577/ns/net".into();
    assert!(one.netns_is_gone(), "the process is gone");
}

#[test]
fn who_lives_on_reads_a_record_again_when_it_was_replaced_or_went_and_not_otherwise() {
    let folder = Folder::new("attachment-last");
    let last = Arc::new(LastRecords::default());
    let records = folder.records().keeping(&last);
    let (first, second) = (attachment("a", "eth0"), attachment("b", "eth0"));
    records.write(&first).unwrap();
    records.write(&second).unwrap();
    assert_eq!(records.list(None).unwrap().attachments.len(), 2);
    assert_eq!(last.len(), 0, "they have only just changed, and may again without their times showing it");
    settle(&records.file(&first.id()));
    settle(&records.file(&second.id()));
    assert_eq!(records.list(None).unwrap(), records.list(None).unwrap());
    assert_eq!(last.len(), 2);
    let moved = Attachment { addresses: vec!["10.0.0.9".parse().unwrap()], ..first.clone() };
    records.write(&moved).unwrap();
    let mut listed = records.list(None).unwrap().attachments;
    listed.sort_by_key(|a| a.id().to_string());
    assert_eq!(listed, [moved, second.clone()]);
    records.remove(&first.id()).unwrap();
    assert_eq!(records.list(None).unwrap().attachments, [second]);
    assert_eq!(last.len(), 1, "what went is forgotten");
}

#[test]
fn the_next_record_lies_in_a_draft_that_is_ready_and_what_it_says_is_known() {
    let folder = Folder::new("spare");
    let last = Arc::new(LastRecords::default());
    let records = folder.records().keeping(&last);
    let of_network = |network: &str| fs::read_dir(records.folder().join(network)).unwrap().count();
    let inode = |file: PathBuf| fs::metadata(file).unwrap().ino();
    let (one, two) = (attachment("a", "eth0"), attachment("b", "eth0"));
    records.write(&one).unwrap();
    assert_eq!(of_network("net"), 1, "nothing is laid ready while somebody waits");
    last.tidy();
    let spare = inode(records.folder().join("net/.spare"));
    assert_eq!(records.list(None).unwrap().attachments, std::slice::from_ref(&one), "it is nobody's record");
    assert_eq!(last.known_at(&records.file(&one.id())), None, "it was written while nobody remembered");

    records.write(&two).unwrap();
    assert_eq!(inode(records.file(&two.id())), spare);
    assert_eq!(last.known_at(&records.file(&two.id())).as_ref(), Some(&two), "before it is tidied up");
    last.tidy();
    last.tidy();
    assert_eq!(of_network("net"), 3, "two records and a draft");
    assert_eq!(last.known_at(&records.file(&two.id())).as_ref(), Some(&two));
    assert_eq!(folder.records().read(&two.id()), Ok(Some(two.clone())), "whoever reads finds it");

    // Another network has none ready, and what somebody else wrote meanwhile counts.
    let far = Attachment { network: "far".to_owned(), ..one.clone() };
    records.write(&far).unwrap();
    assert_eq!(of_network("far"), 1);
    last.tidy();
    assert_eq!(
        (of_network("far"), of_network("net")),
        (2, 2),
        "the next one is expected where the last one came"
    );
    let gateway = Attachment { gateway: true, ..two };
    folder.records().write(&gateway).unwrap();
    assert_eq!(records.read_again(&gateway.id()), Ok(Some(gateway.clone())));
    records.remove(&gateway.id()).unwrap();
    assert_eq!(records.read_again(&gateway.id()), Ok(None));

    // What went or was replaced before anybody tidied up is not known by what was in it.
    let three = attachment("c", "eth0");
    for replaced in [false, true] {
        records.write(&three).unwrap();
        last.tidy();
        records.remove(&three.id()).unwrap();
        records.write(&three).unwrap();
        let found = if replaced {
            let other = Attachment { gateway: true, ..three.clone() };
            folder.records().write(&other).unwrap();
            Some(other)
        } else {
            records.remove(&three.id()).unwrap();
            None
        };
        assert_eq!(records.read_again(&three.id()), Ok(found));
    }
}

#[test]
fn a_draft_that_is_lost_or_left_by_who_was_killed_costs_no_record() {
    let folder = Folder::new("spare-lost");
    let last = Arc::new(LastRecords::default());
    let records = folder.records().keeping(&last);
    let write = |name: &str| {
        let one = attachment(name, "eth0");
        records.write(&one).unwrap();
        last.tidy();
        assert_eq!(records.read(&one.id()), Ok(Some(one)));
    };
    let spare = records.folder().join("net/.spare");
    write("a");
    fs::remove_file(&spare).unwrap();
    write("b");
    fs::remove_dir_all(records.folder()).unwrap();
    write("c");
    // The next process finds what this one left.
    let left = "x".repeat(5000);
    fs::write(&spare, &left).unwrap();
    let next = Arc::new(LastRecords::default());
    let records = folder.records().keeping(&next);
    for name in ["d", "e"] {
        let one = attachment(name, "eth0");
        records.write(&one).unwrap();
        next.tidy();
        assert_eq!(folder.records().read(&one.id()), Ok(Some(one)));
    }
    assert_eq!(records.list(None).unwrap().torn, []);
}

#[test]
fn of_two_who_live_on_one_has_the_draft_and_neither_writes_into_the_others_record() {
    let folder = Folder::new("spare-two");
    let both = [Arc::new(LastRecords::default()), Arc::new(LastRecords::default())];
    let write = |last: &Arc<LastRecords>, name: &str| {
        let one = attachment(name, "eth0");
        folder.records().keeping(last).write(&one).unwrap();
        one
    };
    // Each makes a file for its first one, and lays a draft ready if there is none.
    let mut written: Vec<Attachment> = Vec::new();
    for (last, name) in both.iter().zip(["a", "b"]) {
        written.push(write(last, name));
        last.tidy();
    }
    written.extend([("c", 0), ("d", 1), ("e", 0)].map(|(name, which)| write(&both[which], name)));
    both.iter().for_each(|last| last.tidy());
    written.extend([("f", 1), ("g", 0)].map(|(name, which)| write(&both[which], name)));
    for one in written {
        assert_eq!(folder.records().read(&one.id()), Ok(Some(one)));
    }
}
