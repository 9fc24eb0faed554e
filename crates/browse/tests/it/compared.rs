//! What became of files.

use aiv_browse::{Change, Closely, Comparison, FileType, Timestamp, compare};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::{disk, root};

fn compared(old: Tree, new: Tree, changed: Option<&ExtentSet>) -> Comparison {
    let (old, new) = (disk(old), disk(new));
    compare(&root(&old), &root(&new), Closely { changed }, Job::silent()).unwrap()
}

fn words(comparison: &Comparison) -> Vec<String> {
    let word = |one: &aiv_browse::Difference| match &one.change {
        Change::Added => format!("+ {}", one.path),
        Change::Removed => format!("- {}", one.path),
        Change::Renamed { from } => format!("{from} > {}", one.path),
        Change::Changed { what } => format!("{} {what:?}", one.path),
    };
    comparison.differences().map(|one| word(&one)).collect()
}

/// Root with a folder and three files; their places are 0, 1000 and 2000.
fn tree() -> Tree {
    let mut tree = Tree::new();
    let folder = tree.add(1, b"folder", Node::of(FileType::Folder));
    for (name, place) in [(b"a", 0), (b"b", 1000), (b"c", 2000)] {
        tree.add(folder, name, Node { place, ..Node::file(&[name[0]; 100]) });
    }
    tree
}

#[test]
fn the_same_is_the_same() {
    let comparison = compared(tree(), tree(), None);
    assert_eq!((comparison.count(), comparison.same), (0, 5));
}

#[test]
fn what_is_new_gone_renamed_and_changed_is_told() {
    let mut new = tree();
    let folder = 2;
    new.node(folder).names.retain(|(name, _)| name != b"b");
    new.name(folder, b"moved", 4);
    new.node(folder).names.retain(|(name, _)| name != b"c");
    new.add(folder, b"new", Node::file(b"new"));
    let deep = new.add(1, b"deep", Node::of(FileType::Folder));
    new.add(deep, b"er", Node::link(b"x"));
    let a = new.node(3);
    a.bytes[7] = b'!';
    a.metadata.mode = Some(0o600);
    a.metadata.changed = Some(Timestamp::utc(1_700_000_001, 0));
    let expected = [
        "+ /p0/deep",
        "+ /p0/deep/er",
        "/p0/folder/a [Content, Mode]",
        "/p0/folder/b > /p0/folder/moved",
        "+ /p0/folder/new",
        "- /p0/folder/c",
    ];
    assert_eq!(words(&compared(tree(), new, None)), expected);
}

#[test]
fn a_record_that_was_used_again_is_no_renamed_file() {
    let mut new = tree();
    new.node(2).names.retain(|(name, _)| name != b"b");
    new.name(2, b"other", 4);
    new.node(4).metadata.created = Some(Timestamp::utc(1_700_000_009, 0));
    let words = words(&compared(tree(), new, None));
    assert_eq!(words, ["+ /p0/folder/other", "- /p0/folder/b"]);
}

#[test]
fn what_changed_without_a_trace_in_its_record_is_found_by_changed_blocks() {
    let mut new = tree();
    new.node(4).bytes[50] = 0;
    assert_eq!(compared(tree(), new.clone(), None).count(), 0, "nobody looked");
    let changed: ExtentSet = [Extent::new(990, 40), Extent::new(5000, 60)].into_iter().collect();
    let comparison = compared(tree(), new, Some(&changed));
    assert_eq!(words(&comparison), ["/p0/folder/b [Content]"]);
    assert_eq!(
        (comparison.differences().next().unwrap().changed_bytes, comparison.elsewhere),
        (30, 70)
    );
    // Changed blocks whose bytes of the file are the same are no change of it.
    assert_eq!(compared(tree(), tree(), Some(&changed)).count(), 0);
}

#[test]
fn a_file_that_became_a_folder_is_gone_and_new() {
    let mut new = tree();
    new.node(4).metadata.file_type = FileType::Folder;
    let comparison = compared(tree(), new, None);
    assert_eq!(words(&comparison), ["+ /p0/folder/b", "- /p0/folder/b"]);
    let what = comparison.differences().map(|one| one.file_type).collect::<Vec<_>>();
    assert_eq!(what, [FileType::Folder, FileType::File]);
}

#[test]
fn holes_without_end_are_compared_without_being_read() {
    let tree = |last: u8, time| {
        let mut tree = Tree::new();
        let len = 1_u64 << 60;
        let holes = vec![Extent::new(100, len - 100)];
        let mut bytes = vec![7; 100];
        bytes[99] = last;
        let mut node = Node { len: Some(len), holes, ..Node::file(&bytes) };
        node.metadata.len = len;
        node.metadata.modified = Some(Timestamp::utc(time, 0));
        tree.add(1, b"file", node);
        tree
    };
    assert_eq!(words(&compared(tree(1, 1), tree(1, 2), None)), ["/p0/file [Modified]"]);
    assert_eq!(words(&compared(tree(1, 1), tree(2, 2), None)), ["/p0/file [Content, Modified]"]);
}

#[test]
fn what_cannot_be_read_costs_no_other_difference_and_is_not_called_the_same() {
    let bad = vec![Extent::new(10, 1)];
    let mut new = tree();
    new.node(3).bad.clone_from(&bad);
    new.node(3).metadata.mode = Some(0o600);
    new.node(4).bad.clone_from(&bad);
    for number in [3, 4] {
        new.node(number).metadata.changed = Some(Timestamp::utc(1_700_000_001, 0));
    }
    let comparison = compared(tree(), new, None);
    assert_eq!(words(&comparison), ["/p0/folder/a [Mode]"]);
    assert_eq!((comparison.troubles.len(), comparison.same), (2, 3));
}

#[test]
fn streams_with_other_names_or_bytes_are_a_difference() {
    let with = |name: &[u8], bytes: &[u8], changed| {
        let mut tree = tree();
        tree.node(3).streams = vec![(name.to_vec(), bytes.to_vec())];
        tree.node(3).metadata.changed = Some(Timestamp::utc(changed, 0));
        tree
    };
    let old = with(b"a", b"one", 1);
    for new in [with(b"b", b"one", 2), with(b"a", b"two", 2)] {
        assert_eq!(words(&compared(old.clone(), new, None)), ["/p0/folder/a [Streams]"]);
    }
    assert_eq!(compared(old, with(b"a", b"one", 2), None).count(), 0);
}

#[test]
fn a_folder_that_moved_is_as_many_renamed_files_and_of_several_names_each_is_one() {
    let mut old = Tree::new();
    let (a, z) = (
        old.add(1, b"a", Node::of(FileType::Folder)),
        old.add(1, b"z", Node::of(FileType::Folder)),
    );
    let mut inside = Vec::new();
    for n in 0..50_u8 {
        inside.push(old.add(a, &[b'f', n / 10 + 48, n % 10 + 48], Node::file(&[n])));
    }
    old.name(z, b"other", inside[7]);
    let mut new = old.clone();
    // Everything in `a` is in `b`, one level below, by now; and one file has two new names for two
    // that are gone.
    new.node(1).names.clear();
    let b = new.add(1, b"b", Node::of(FileType::Folder));
    new.name(b, b"was a", a);
    new.name(b, b"one more", inside[7]);
    let comparison = compared(old, new, None);
    let words = words(&comparison);
    assert_eq!(
        words[..4],
        [
            "+ /p0/b",
            "/p0/z/other > /p0/b/one more",
            "/p0/a > /p0/b/was a",
            "/p0/a/f00 > /p0/b/was a/f00",
        ]
    );
    assert_eq!(words[words.len() - 2..], ["/p0/a/f49 > /p0/b/was a/f49", "- /p0/z"]);
    assert_eq!((comparison.count(), words.len(), comparison.same), (54, 54, 1));
}
