//! How fast a file is scanned for what is left of an image, compared with reading it from front
//! to back: `cargo run --release -p aiv-image-format --example salvage_speed [MiB]`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiv_image_format::Keys;
use aiv_image_format::hash::leaf;
use aiv_image_format::meta::{DiskInfo, Meta};
use aiv_image_format::salvage::{Hints, Salvage};
use aiv_image_format::{
    BlockSize, Compression, Encoder, Features, Geometry, ImageId, ImageKind, ImageWriter, PointId,
    SessionTag, SetId, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, FileDisk, Job, MemDisk, ReadAt, Storage, WriteAt};

/// The best of these counts: other programs only ever make it slower.
const ROUNDS: usize = 25;
const BLOCK: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(512), |word| word.parse())?;
    let mut file = tempfile::NamedTempFile::new()?;
    let bytes = image(mib)?;
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    let whole = Arc::new(FileDisk::open_source(file.path())?);
    let len = whole.len();
    let forget = || whole.drop_cache(Extent::new(0, len));
    // Nothing to step by: only resynchronising.
    let noise = Arc::new(MemDisk::from_bytes(vec![0x5a; bytes.len()]));
    let memory = Arc::new(MemDisk::from_bytes(bytes));
    let mut best = [Duration::MAX; 5];
    for _ in 0..ROUNDS {
        let scan = |file: Arc<dyn ReadAt>| {
            time(|| Salvage::scan(file, &Keys::none(), &Hints::default(), Job::silent()).map(drop))
        };
        forget();
        let cold_read = time(|| read_through(&*whole));
        forget();
        let cold_scan = scan(whole.clone());
        let blind = time(|| {
            let nothing =
                Salvage::scan(noise.clone(), &Keys::none(), &Hints::default(), Job::silent());
            if nothing.is_ok() { Err("an image in noise") } else { Ok(()) }
        });
        let read = time(|| read_through(&*memory));
        let times = [cold_read, cold_scan, read, scan(memory.clone()), blind];
        best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let [cold_read, cold_scan, read, scan, blind] =
        best.map(|time| len as f64 / time.as_secs_f64() / 1e9);
    println!("{} MiB in GB/s", len >> 20);
    println!("from the disk:  read {cold_read:.2}, scan {cold_scan:.2}");
    println!("from memory:    read {read:.2}, scan {scan:.2}, without any frame {blind:.2}");
    Ok(())
}

fn time<E: std::fmt::Debug>(work: impl FnOnce() -> Result<(), E>) -> Duration {
    let start = Instant::now();
    work().expect("the file is sound");
    start.elapsed()
}

fn read_through(file: &dyn ReadAt) -> std::io::Result<()> {
    let mut buffer = vec![0; 4 << 20];
    let mut at = 0;
    while at < file.len() {
        let now = usize::try_from(file.len() - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..now], at)?;
        at += now as u64;
    }
    Ok(())
}

/// An image of `mib` MiB of blocks, half of them compressed.
fn image(mib: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    let size = BlockSize::new(65536).ok_or("a block size")?;
    let geometry = Geometry::new(mib << 20, size, 512).ok_or("a disk")?;
    let superblock = Superblock {
        features: Features::default(),
        image: ImageId([1; 16]),
        set: SetId([1; 16]),
        point: PointId([1; 16]),
        kind: ImageKind::Full,
        parent: None,
        geometry,
        created_unix_ms: 0,
        session: SessionTag([1; 12]),
        writer: String::new(),
        key_commitment: aiv_image_format::Digest::default(),
        source_token: aiv_image_format::Digest::default(),
    };
    let storage = MemStorage::new();
    let mut writer = ImageWriter::create(storage.create("a")?, superblock)?;
    let mut encoder = Encoder::new(Compression::Lz4, false);
    let mut block = vec![0; BLOCK];
    for number in 0..geometry.blocks() {
        let mut stream = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let noisy = if number % 2 == 0 { BLOCK } else { BLOCK / 2 };
        stream.fill(&mut block[..noisy]);
        block[noisy..].fill(1);
        writer.push_block(&encoder.encode(&block, leaf(&block))?)?;
    }
    writer.finish(Meta { disk: DiskInfo::bare(mib << 20, 512), ..Meta::default() })?;
    Ok(storage.contents("a").ok_or("it was just written")?.to_vec())
}
