//! Volumes that lie.

use aiv_browse::{Closely, FileType, Links, Step, Walk, compare};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Cancel, Job, Progress};

use crate::{disk, resolve, root};

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
    let (paths, troubles) = walked(tree.clone());
    assert!((4000..5000).contains(&paths.len()), "deeper than any real tree");
    assert_eq!(troubles, [paths.last().unwrap().clone()], "what is left out is named");
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

#[test]
fn a_listing_of_one_level_calls_nothing_left_out() {
    let mut tree = Tree::new();
    let folder = tree.add(1, b"a", Node::of(FileType::Folder));
    tree.add(folder, b"b", Node::of(FileType::Folder));
    let disk = disk(tree);
    let mut count = 0;
    let mut visit = |_: &aiv_browse::Found<'_>| {
        count += 1;
        Step::On
    };
    let mut trouble = |_: &aiv_browse::Trouble<'_>| unreachable!("nothing was to be entered");
    Walk { depth: 0 }.run(&root(&disk), Job::silent(), &mut visit, &mut trouble).unwrap();
    assert_eq!(count, 2);
}

#[test]
fn what_is_too_deep_to_be_compared_or_has_two_names_is_named() {
    let mut tree = Tree::new();
    let mut at = 1;
    for _ in 0..4200 {
        at = tree.add(at, b"d", Node::of(FileType::Folder));
    }
    let disks = [disk(tree.clone()), disk(tree)];
    let found = compare(&root(&disks[0]), &root(&disks[1]), Closely::default(), Job::silent());
    let troubles = found.unwrap().troubles;
    assert_eq!(troubles.len(), 1);
    assert!(troubles[0].1.contains("deep"), "{troubles:?}");

    let mut tree = Tree::new();
    let a = tree.add(1, b"a", Node::of(FileType::Folder));
    tree.name(a, b"again", a);
    let disks = [disk(tree.clone()), disk(tree)];
    let found = compare(&root(&disks[0]), &root(&disks[1]), Closely::default(), Job::silent());
    let troubles = found.unwrap().troubles;
    assert_eq!(troubles.len(), 1);
    assert_eq!(troubles[0].0.to_string(), "/p0/a/again");
}

#[test]
fn a_link_through_a_folder_within_itself_ends_and_takes_little_memory() {
    let mut tree = Tree::new();
    let a = tree.add(1, b"a", Node::of(FileType::Folder));
    tree.name(a, b"a", a);
    tree.add(a, b"file", Node::file(b"x"));
    let far = [b"a/".repeat(32_000), b"file".to_vec()].concat();
    tree.add(1, b"link", Node::link(&far));
    // With a path for each step on the way, this would take 12 GiB.
    let file = resolve(&disk(tree), "/p0/link", Links::Follow).unwrap();
    assert_eq!(file.path.parts().len(), 32_002);
}
