use aiv_browse::{Error, FileType, Links};
use aiv_testkit::files::{Node, Tree};

use crate::{disk, resolve};

#[test]
fn links_are_followed_within_the_volume_and_never_above_its_root() {
    let mut tree = Tree::new();
    let etc = tree.add(1, b"etc", Node::of(FileType::Folder));
    tree.add(etc, b"os", Node::file(b"os"));
    tree.add(etc, b"up", Node::link(b"../../../../etc/os"));
    tree.add(etc, b"root", Node::link(b"/etc/./os"));
    tree.add(1, b"e", Node::link(b"etc"));
    tree.add(1, b"e2", Node::link(b"e/"));
    tree.add(1, b"broken", Node::link(b"etc/nothing"));
    tree.add(1, b"loop", Node::link(b"loop2"));
    tree.add(1, b"loop2", Node::link(b"loop"));
    tree.add(1, b"empty", Node::link(b""));
    let disk = disk(tree);
    for path in ["/p0/etc/os", "p0/etc/up", "/p0/e/root", "/p0/e2/up", "/p0//etc/./os/"] {
        let file = resolve(&disk, path, Links::Follow).unwrap();
        assert_eq!(file.path.to_string(), "/p0/etc/os", "{path}");
    }
    let kept = resolve(&disk, "/p0/e2/up", Links::Keep).unwrap();
    assert_eq!(
        (kept.metadata.file_type, kept.path.to_string().as_str()),
        (FileType::Link, "/p0/etc/up")
    );
    let error = |path: &str| resolve(&disk, path, Links::Follow).unwrap_err();
    assert!(matches!(error("/p0/loop"), Error::LinkNowhere { .. }));
    assert!(matches!(error("/p0/empty"), Error::LinkNowhere { .. }));
    assert!(matches!(error("/p0/etc/os/x"), Error::NotAFolder { .. }));
    assert!(
        matches!(error("/p0/broken"), Error::NotFound { path } if path.to_string() == "/p0/etc/nothing")
    );
    let none = error("/p7/etc");
    assert_eq!(none.to_string(), "there is no volume p7: there is only p0");
}
