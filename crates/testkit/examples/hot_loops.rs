//! The three hottest loops, so many rounds of one of them: `hot_loops full|unchanged|read ROUNDS`.
//! `cargo xtask count` counts their instructions. Everything lies in memory, one thread works.

#[path = "../benches/loops/setup.rs"]
mod setup;

use std::hint::black_box;
use std::process::ExitCode;

use aiv_image_format::Compression;
use aiv_testkit::MemStorage;
use aiv_volume_io::ReadAt;

use setup::{BLOCK, BLOCKS, backup, chain, disk};

const FAST: Compression = Compression::Zstd(1);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, rounds] = words.as_slice() else { return ExitCode::from(2) };
    let Ok(rounds) = rounds.parse::<u8>() else { return ExitCode::from(2) };
    match name.as_str() {
        // A full image: every block is hashed, what is new is compressed and written, and what
        // was written is read back.
        "full" => {
            let disk = disk(0);
            for _ in 0..rounds {
                backup(&disk, &MemStorage::new(), FAST, 1);
            }
        }
        // An increment of a disk that did not change: hashing, and one comparison for 128 blocks.
        "unchanged" => {
            let (disk, storage) = (disk(0), MemStorage::new());
            backup(&disk, &storage, FAST, 1);
            for _ in 0..rounds {
                backup(&disk, &storage.fork(), FAST, 2);
            }
        }
        // Every block of a state of two images: lookup, frame, decompression, difference, hash.
        "read" => {
            let (_storage, view) = chain(FAST);
            let mut block = vec![0; BLOCK];
            for _ in 0..rounds {
                for number in 0..BLOCKS {
                    view.read_exact_at(&mut block, (number * BLOCK) as u64).expect("a sound image");
                    black_box(&block);
                }
            }
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
