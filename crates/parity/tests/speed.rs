//! How fast stripes are encoded, for a person who wants to know:
//! `cargo test --release -p aiv-parity -- --ignored --nocapture`.

use std::io::Write;
use std::time::Instant;

use aiv_parity::{DATA_SHARDS_MAX, PARITY_SHARDS, add_shard};

const PIECE: usize = 64 << 10;

#[test]
#[ignore = "measures, and a machine that does other things as well measures nothing"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn a_stripe_is_encoded_at_more_than_a_gigabyte_per_second() {
    let stripe: Vec<u8> = (0..DATA_SHARDS_MAX * PIECE).map(|at| (at % 251) as u8).collect();
    let mut parity = vec![0; PARITY_SHARDS * PIECE];
    let mut best = f64::MAX;
    for _ in 0..41 {
        let start = Instant::now();
        for (column, shard) in stripe.chunks(PIECE).enumerate() {
            add_shard(column, shard, &mut parity);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    assert!(parity.iter().any(|&byte| byte != 0), "an odd number of times the same");
    let rate = stripe.len() as f64 / best / 1e9;
    writeln!(std::io::stderr(), "{rate:.2} GB/s").expect("standard error");
    assert!(rate > 1.0, "{rate:.2} GB/s");
}
