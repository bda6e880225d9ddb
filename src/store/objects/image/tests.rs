//! The image of compiled objects: written, read back, damaged.

use super::*;

fn image() -> Image {
    let stamp = Stamp { inode: 7, size: 8, modified: -9, changed: 10 };
    let object = |kind, name: &'static str, body: &'static [u8]| Compiled {
        kind,
        name: name.into(),
        body: body.into(),
        shares: false,
        digest: 0,
    };
    let file = FileRecord::from;
    let files = [
        file(ReadFile {
            path: c"a.yaml".into(),
            stamp,
            objects: vec![object(Kind::Pod, "s/b", b"1"), object(Kind::Namespace, "s", b"2")],
            problems: b"[]".into(),
        }),
        file(ReadFile { path: c"b.yaml".into(), stamp, objects: vec![], problems: b"".into() }),
        file(ReadFile {
            path: c"c.yaml".into(),
            stamp,
            objects: vec![object(Kind::Pod, "s/a", b"3")],
            problems: b"".into(),
        }),
    ];
    let verdict = Verdict { index: vec![1, 2, 0], problems: vec![], broken: b"x".to_vec(), fingerprint: 5 };
    Image::parse(encode([(c".", stamp)].into_iter(), &files, &verdict).unwrap()).unwrap()
}

#[test]
fn what_was_written_is_found_again() {
    let image = image();
    let body = |slot, name| image.find(slot, name).map(|i| image.object(i).body);
    assert_eq!(
        (body(1, "s/a"), body(1, "s/b"), body(0, "s")),
        (Some(&b"3"[..]), Some(&b"1"[..]), Some(&b"2"[..]))
    );
    assert_eq!((body(0, "t"), body(1, "s"), body(4, "s")), (None, None, None));
    assert_eq!(image.of(1).map(|o| o.name).collect::<Vec<_>>(), ["s/a", "s/b"]);
    assert_eq!(image.file_of(2).unwrap().path, c"c.yaml");
    assert_eq!(image.file_of(1).unwrap().path, c"a.yaml");
    assert_eq!((image.fingerprint(), image.broken(), image.dirs().count()), (5, &b"x"[..], 1));
    assert_eq!(image.files().next().unwrap().stamp.modified, -9);
}

#[test]
fn an_image_with_any_byte_changed_or_missing_is_none() {
    let bytes = image().bytes.to_vec();
    for at in 0..bytes.len() {
        let mut torn = bytes.clone();
        torn[at] ^= 0x40;
        // The four bytes behind the format are not used.
        assert!(Image::parse(torn).is_none() || (12..16).contains(&at), "byte {at}");
        assert!(Image::parse(bytes[..at].to_vec()).is_none(), "cut at {at}");
    }
}
