//! Stored images: what they hold must stay readable, what writes them must not change unnoticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_image_format::meta::Meta;
use aiv_image_format::{Compression, Depth};
use aiv_volume_io::Job;

use crate::recipe::{Block, Fill, Recipe, open, read_all};
use crate::round_trip::check_dump;

/// The stored images by name, each with its recipe.
fn goldens() -> [(&'static str, Recipe); 4] {
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
        ("many-pages", many),
    ]
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

#[test]
fn every_recipe_gives_the_stored_bytes() {
    for (name, recipe) in goldens() {
        let bytes = recipe.build();
        assert!(bytes.len() < 200 << 10, "{name} has {} bytes", bytes.len());
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
        let image = open(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = read_all(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = recipe.expected();
        assert_eq!(read.len(), expected.len());
        assert!(read.iter().zip(&expected).all(|(r, e)| r.0 == e.kind && r.1 == e.bytes), "{name}");
        let origins = vec![recipe.superblock().session];
        assert_eq!(*image.meta(), Meta { origins, ..recipe.meta() }, "{name}");
        assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound(), "{name}");
        let text = check_dump(&image, bytes.len() as u64);
        check_file(&format!("{name}.dump"), text.as_bytes());
    }
}
