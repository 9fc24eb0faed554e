//! How fast stripes are encoded: `cargo run --release -p aiv-parity --example speed`.

use std::io::Write;
use std::time::Instant;

use aiv_parity::{DATA_SHARDS_MAX, PARITY_SHARDS, add_shards};

const PIECE: usize = 64 << 10;

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn main() -> std::io::Result<()> {
    // As many at once as a writer of images has.
    const RUN: usize = 16;
    let stripe: Vec<u8> = (0..=250).cycle().take(DATA_SHARDS_MAX * PIECE).collect();
    let mut parity = vec![0; PARITY_SHARDS * PIECE];
    let mut best = f64::MAX;
    for _ in 0..41 {
        let start = Instant::now();
        for (run, bytes) in stripe.chunks(RUN * PIECE).enumerate() {
            let shards: Vec<&[u8]> = bytes.chunks(PIECE).collect();
            add_shards(run * RUN, &shards, &mut parity);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    // What nobody looks at need not be computed.
    let check = parity.iter().fold(0, |sum, byte| sum ^ byte);
    let rate = stripe.len() as f64 / best / 1e9;
    writeln!(std::io::stdout(), "{rate:.2} GB/s of data, best of 41 stripes ({check:02x})")
}
