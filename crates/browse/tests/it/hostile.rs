//! Volumes that lie.

use aiv_browse::{FileType, Step, Walk};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Cancel, Job, Progress};

use crate::{disk, root};

fn walked(tree: Tree) -> (Vec<String>, Vec<String>) {
    let disk = disk(tree);
    let (mut paths, mut troubles) = (Vec::new(), Vec::new());
    Walk::default()
        .run(
            &root(&disk),
            Job::silent(),
            &mut |found| {
                paths.push(found.path.to_string());
                Step::On
            },
            &mut |trouble| troubles.push(trouble.path.to_string()),
        )
        .unwrap();
    (paths, troubles)
}

#[test]
fn names_that_lead_elsewhere_are_no_names() {
    let mut tree = Tree::new();
    for name in [&b".."[..], b".", b"", b"a/b", b"/etc", b"../../x", b"a\0b", b"good"] {
        tree.add(1, name, Node::file(b"x"));
    }
    assert_eq!(walked(tree).0, ["/p0", "/p0/good"]);
}

#[test]
fn folders_within_themselves_end_the_walk_of_that_folder_only() {
    let mut tree = Tree::new();
    let a = tree.add(1, b"a", Node::of(FileType::Folder));
    let b = tree.add(a, b"b", Node::of(FileType::Folder));
    tree.name(b, b"root", 1);
    tree.name(b, b"a", a);
    tree.add(b, b"file", Node::file(b"x"));
    let (paths, troubles) = walked(tree);
    assert!(paths.contains(&"/p0/a/b/file".to_owned()));
    assert_eq!(troubles, ["/p0/a/b/a", "/p0/a/b/root"]);
}

#[test]
fn folders_with_two_names_each_are_no_exponential_work() {
    let mut tree = Tree::new();
    let mut at = 1;
    for _ in 0..200 {
        let next = tree.add(at, b"a", Node::of(FileType::Folder));
        tree.name(at, b"b", next);
        at = next;
    }
    let (paths, troubles) = walked(tree);
    assert_eq!((paths.len(), troubles.len()), (401, 200));
}

#[test]
fn very_deep_folders_end_and_a_walk_can_be_stopped() {
    let mut tree = Tree::new();
    let mut at = 1;
    for _ in 0..5000 {
        at = tree.add(at, b"d", Node::of(FileType::Folder));
    }
    assert!((2000..5000).contains(&walked(tree.clone()).0.len()));
    struct Nobody;
    impl Progress for Nobody {}
    let cancel = Cancel::new();
    cancel.cancel();
    let disk = disk(tree);
    let ended = Walk::default().run(
        &root(&disk),
        Job::new(&Nobody, &cancel),
        &mut |_| Step::On,
        &mut |_| {},
    );
    assert!(ended.is_err());
}
