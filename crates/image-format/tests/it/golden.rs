//! Stored images: what they hold must stay readable, what writes them must not change unnoticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::meta::Meta;
use aiv_image_format::{Compression, Depth, Features, Keys, Mode, Seal, segment_name};
use aiv_volume_io::Job;

use crate::areas::Areas;
use crate::change::{Change, Increment};
use crate::keyed_segments::keyed_three;
use crate::parents::{Files, read_block};
use crate::recipe::{Block, Fill, Recipe, open, open_with, read_all};
use crate::round_trip::check_dump;
use crate::sealed::{key, slots};
use crate::sealed_parents::{base, increment};
use crate::segments::{open_keyed, split, three};

/// The stored images by name, each with its recipe.
fn goldens() -> [(&'static str, Recipe); 9] {
    let blocks = [
        (Block::Data(Fill::Words(1)), 1),
        (Block::Data(Fill::Noise(2)), 1),
        (Block::Zero, 5),
        (Block::Unused, 300),
        (Block::Data(Fill::Words(3)), 2),
        (Block::Ref(0), 1),
        (Block::Ref(1), 1),
        (Block::Excluded, 4),
        (Block::PartlyUnreadable(Fill::Words(4)), 1),
        (Block::Unreadable, 2),
        (Block::Data(Fill::Words(5)), 1),
    ];
    let keyed = |mode, slots| Recipe {
        seal: Some(Seal { mode, padding: true, slots, ..Seal::new(key(), 0x0102_0304) }),
        small_meta: true,
        short_by: 5632,
        ..Recipe::new(&blocks)
    };
    let slots = Some(slots());
    let (local, padded) = (local(), Seal { padding: true, ..Seal::new(key(), 0x0102_0304) });
    let seal = Some(Seal { slots: slots.clone(), ..padded });
    let local_sealed = Recipe { id: 13, seal, ..local.clone() };
    let with = |compression| Recipe { compression, short_by: 5632, ..Recipe::new(&blocks) };
    let mut many = vec![(Block::Data(Fill::Words(6)), 1)];
    many.extend((0..60).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 2), (Block::Excluded, 1)]));
    many.push((Block::Data(Fill::Words(7)), 1));
    let many = Recipe {
        checkpoint_every: 70,
        sector_size: 4096,
        block_size: 64 << 10,
        id: 2,
        ..Recipe::new(&many)
    };
    [
        ("none", with(Compression::None)),
        ("lz4", with(Compression::Lz4)),
        ("zstd", with(Compression::Zstd(1))),
        ("sealed", keyed(Mode::Sealed, slots)),
        ("authenticated", keyed(Mode::Authenticated, None)),
        ("many-pages", many),
        ("parent", parent()),
        ("local", local),
        ("local-sealed", local_sealed),
    ]
}

/// Blocks that are differences to others of the image: to two, across a checkpoint, to one that
/// comes twice, and one that is shorter than its bases.
fn local() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Words(1)), 1),
        (Block::Shifted(0), 1),
        (Block::Data(Fill::Noise(2)), 1),
        (Block::Zero, 2),
        (Block::Data(Fill::Noise(3)), 1),
        (Block::Ref(1), 1),
        (Block::Shifted(1), 1),
        (Block::Unused, 140),
        (Block::Shifted(0), 1),
        (Block::Data(Fill::Words(4)), 1),
        (Block::Shifted(2), 1),
        (Block::Excluded, 3),
        (Block::Shifted(1), 1),
    ];
    Recipe { id: 12, checkpoint_every: 6, small_meta: true, short_by: 5632, ..Recipe::new(&blocks) }
}

/// What `child.aii` builds on: three groups of blocks, the last one short.
fn parent() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Words(1)), 1),
        (Block::Data(Fill::Words(2)), 1),
        (Block::Zero, 3),
        (Block::Unused, 300),
        (Block::Data(Fill::Words(3)), 2),
        (Block::Excluded, 4),
        (Block::PartlyUnreadable(Fill::Words(4)), 1),
        (Block::Data(Fill::Words(5)), 1),
    ];
    Recipe { short_by: 5632, ..Recipe::new(&blocks) }
}

/// Every kind of entry an image with a parent can have. The disk has grown by two blocks; the
/// second group of blocks is inherited as a whole.
fn child() -> Increment {
    let changes = [
        (Change::Patch(5000), 1),
        (Change::PatchOf(305, 9000), 1),
        (Change::Words(6), 1),
        (Change::Repeat(0), 1),
        (Change::Moved(1), 1),
        (Change::Keep, 3),
        (Change::Excluded, 1),
        (Change::Zero, 2),
        (Change::Unreadable, 1),
        (Change::PartlyUnreadable(7), 1),
        (Change::Keep, 292),
        (Change::Moved(0), 1),
        (Change::Keep, 5),
        (Change::Unreadable, 1),
        (Change::Words(8), 1),
        (Change::Unused, 2),
    ];
    let len = 315 * (16 << 10) - 512;
    Increment { len, checkpoint_every: 150, ..Increment::new(&changes) }
}

/// The state of the parent, read from its file.
fn parent_state(bytes: &Arc<Vec<u8>>) -> Files {
    let image = open(bytes).unwrap_or_else(|error| panic!("parent: {error}"));
    Files::new(image, None).unwrap_or_else(|error| panic!("parent: {error}"))
}

fn stored(name: &str) -> Arc<Vec<u8>> {
    Arc::new(fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

/// Whether the stored files are to be written anew; see `testdata/README.md`.
#[expect(clippy::disallowed_methods, reason = "a person asks for it, on purpose, by hand")]
fn is_blessing() -> bool {
    std::env::var_os("AIV_BLESS").is_some()
}

#[track_caller]
fn check_file(name: &str, fresh: &[u8]) {
    let path = folder().join(name);
    if is_blessing() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, fresh).unwrap();
    }
    let stored = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(stored == fresh, "{name} differs; read testdata/README.md before you bless it");
}

/// Stored images are small: what comes with every image, and what they hold.
#[track_caller]
fn check_len(name: &str, bytes: &Arc<Vec<u8>>) {
    let parity = Areas::of(bytes).parity.len();
    assert!(parity <= 24 << 10, "{name} has {parity} bytes of parity");
    let len = bytes.len() - parity;
    assert!(len < 200 << 10, "{name} has {len} bytes");
}

/// Images with parity over their pieces: at least four pieces of it, and a wide gap. One is sealed,
/// with key slots, which count as zeros in its parity.
#[test]
fn the_stored_images_with_parity_are_as_their_recipes_say() {
    let plain = Recipe { features: Features::PARITY, id: 3, ..parent() };
    let seal = Seal { slots: Some(slots()), ..Seal::new(key(), 0x0102_0304) };
    let sealed = Recipe { id: 4, small_meta: true, seal: Some(seal), ..plain.clone() };
    check_parity("parity", &plain);
    check_parity("sealed-parity", &sealed);
}

fn check_parity(name: &str, recipe: &Recipe) {
    let fresh = recipe.build();
    check_file(&format!("{name}.aiv"), &fresh);
    let bytes = stored_or(&format!("{name}.aiv"), &fresh);
    let image = open_with(&bytes, &recipe.keys()).unwrap_or_else(|error| panic!("{error}"));
    let read = read_all(&image).unwrap();
    let expected = recipe.expected();
    assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes));
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let text = check_dump(&image, bytes.len() as u64);
    assert!(text.contains("PARITY stripe 0") && text.contains("13 stripes"), "{text}");
    check_file(&format!("{name}.dump"), text.as_bytes());
}

#[test]
fn every_recipe_gives_the_stored_bytes() {
    for (name, recipe) in goldens() {
        let bytes = recipe.build();
        check_len(name, &bytes);
        check_file(&format!("{name}.aiv"), &bytes);
    }
}

#[test]
fn every_stored_image_reads_as_its_recipe_says() {
    for (name, recipe) in goldens() {
        let bytes = match is_blessing() {
            true => recipe.build(),
            false => Arc::new(fs::read(folder().join(format!("{name}.aiv"))).unwrap()),
        };
        let image =
            open_with(&bytes, &recipe.keys()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = read_all(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = recipe.expected();
        assert_eq!(read.len(), expected.len());
        assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes), "{name}");
        let origins = vec![recipe.superblock().session];
        assert_eq!(*image.meta(), Meta { origins, ..recipe.meta() }, "{name}");
        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound(), "{name}");
        let text = check_dump(&image, bytes.len() as u64);
        assert_eq!(text.contains("LOCAL block 1,"), name.starts_with("local"), "{name}");
        check_file(&format!("{name}.dump"), text.as_bytes());
    }
}

/// Images in segments: plain, sealed with key slots in the first and the last one, and
/// authenticated with parity over their pieces.
fn splits() -> [(&'static str, Recipe); 3] {
    let sealed = Recipe { id: 10, ..keyed_three(Mode::Sealed) };
    let features = Features::PARITY;
    let parity = Recipe { id: 11, features, ..keyed_three(Mode::Authenticated) };
    [
        ("split.aiv", three()),
        ("sealed-split.aiv", sealed),
        ("authenticated-split-parity.aiv", parity),
    ]
}

#[test]
fn split_recipes_give_the_stored_segments() {
    for (name, recipe) in splits() {
        let fresh = split(&recipe, SEGMENT_BYTES_MIN);
        assert!(fresh.len() >= 3);
        for (no, bytes) in (0..).zip(&fresh) {
            check_file(&segment_name(name, no), bytes);
        }
        assert!(!folder().join(segment_name(name, u32::try_from(fresh.len()).unwrap())).exists());
    }
}

#[test]
fn the_stored_segments_read_as_their_recipes_say() {
    for (name, recipe) in splits() {
        let fresh = split(&recipe, SEGMENT_BYTES_MIN);
        let files: Vec<Arc<Vec<u8>>> = (0..)
            .zip(&fresh)
            .map(|(no, fresh)| stored_or(&segment_name(name, no), fresh))
            .collect();
        let image = open_keyed(&files, &recipe.keys());
        let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = read_all(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = recipe.expected();
        assert_eq!(read.len(), expected.len());
        assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes), "{name}");
        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound(), "{name}");
        let text = check_dump(&image, image.trailer().file_len);
        check_file(&name.replace(".aiv", ".dump"), text.as_bytes());
    }
}

#[test]
fn the_stored_child_is_what_its_changes_make_of_the_parent() {
    let old = parent_state(&parent().build()).model();
    let bytes = child().build(&old);
    check_len("child", &bytes);
    check_file("child.aii", &bytes);
}

#[test]
fn the_stored_child_reads_on_the_stored_parent() {
    let (below, bytes) = match is_blessing() {
        true => (parent().build(), child().build(&parent_state(&parent().build()).model())),
        false => (stored("parent.aiv"), stored("child.aii")),
    };
    let below = parent_state(&below);
    let image = open(&bytes).unwrap_or_else(|error| panic!("child: {error}"));
    let wanted = child().state(&below.model());
    for (block, cell) in (0..).zip(&wanted.cells) {
        let mut out = vec![0; cell.1.len()];
        read_block(&image, Some(&below), block, &mut out).unwrap();
        assert!(out == cell.1, "block {block}");
    }
    assert_eq!(image.trailer().state_root, wanted.state_root);
    assert!(image.verify_on(&below, Depth::Data, Job::silent()).unwrap().is_sound());
    let text = check_dump(&image, bytes.len() as u64);
    for kind in [
        "DATA",
        "DELTA",
        "ZERO",
        "UNUSED",
        "EXCLUDED",
        "UNREADABLE",
        "REF",
        "PARENT",
        "inherited",
        "depth 1 on block 0 of the parent",
        "depth 1 on block 305 of the parent",
        "as block 1 of the parent",
        "parent point",
    ] {
        assert!(text.contains(kind), "{kind} is not in\n{text}");
    }
    check_file("child.dump", text.as_bytes());
}

/// A sealed child of a sealed parent.
#[test]
fn the_stored_sealed_child_reads_on_its_parent_with_the_key() {
    let seal = Some(Seal::new(key(), 0x0102_0304));
    let keys = Keys::of(key());
    let parent = base(seal.clone()).build();
    check_file("sealed-parent.aiv", &parent);
    let open =
        |bytes: &Arc<Vec<u8>>| open_with(bytes, &keys).unwrap_or_else(|error| panic!("{error}"));
    let below = Files::new(open(&stored_or("sealed-parent.aiv", &parent)), None).unwrap();
    let old = below.model();
    let child = increment(seal.clone()).build_on(&old, &below);
    check_file("sealed-child.aii", &child);
    let image = open(&stored_or("sealed-child.aii", &child));
    let wanted = increment(seal).state(&old);
    assert_eq!(image.roots().map(|roots| roots.state), Some(wanted.state_root));
    assert!(image.verify_on(&below, Depth::Data, Job::silent()).unwrap().is_sound());
    check_file("sealed-child.dump", check_dump(&image, child.len() as u64).as_bytes());
}

fn stored_or(name: &str, fresh: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
    if is_blessing() { fresh.clone() } else { stored(name) }
}
