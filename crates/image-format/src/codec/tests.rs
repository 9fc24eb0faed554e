use aiv_testkit::Random;
use proptest::prelude::*;

use super::*;

/// Bytes without structure, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

const ALL: [Compression; 4] =
    [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_codec_gives_the_block_back(
        seed in any::<u64>(), len in 1usize..70_000, repeat in 1usize..4000, codec in 0usize..4,
    ) {
        let unit = noise(seed, repeat.min(len));
        let block: Vec<u8> = unit.iter().copied().cycle().take(len).collect();
        let encoded = Encoder::new(ALL[codec], true).encode(&block, hash::leaf(&block))?;
        let mut back = vec![0; len];
        Decoder::new().decode(encoded.codec, &encoded.payload, &mut back).expect("own payload");
        prop_assert_eq!(back, block);
    }

    #[test]
    fn any_payload_fills_the_block_or_fails(
        payload in prop::collection::vec(any::<u8>(), 0..300), codec in 0u8..4, len in 0usize..5000,
    ) {
        let mut out = vec![0; len];
        let _ = Decoder::new().decode(codec, &payload, &mut out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_difference_gives_the_block_back(
        seed in any::<u64>(), len in 1usize..70_000, at in any::<usize>(), changed in 1usize..300,
        level in prop::sample::select(vec![1, 3, 19]), is_dictionary in any::<bool>(),
    ) {
        let mut base = noise(seed, len);
        if is_dictionary && len > 4 {
            base[..4].copy_from_slice(&DICTIONARY_MAGIC);
        }
        let mut block = base.clone();
        let from = at % len;
        let to = len.min(from + changed);
        block[from..to].copy_from_slice(&noise(seed ^ 1, to - from));
        let frame = compress_delta(level, &block, &base).expect("compresses");
        let mut decoder = Decoder::new();
        for _ in 0..2 {
            let mut back = vec![0; len];
            decoder.decode_delta(&base, &frame, &mut back).expect("own frame");
            prop_assert!(back == block);
        }
        // A base leaves nothing behind in the decoder.
        let whole = Encoder::new(Compression::Zstd(1), false).encode(&block, Digest([0; 32]))?;
        let mut back = vec![0; len];
        decoder.decode(whole.codec, &whole.payload, &mut back).expect("own payload");
        prop_assert!(back == block);
    }

    #[test]
    fn any_difference_fills_the_block_or_fails(
        base in prop::collection::vec(any::<u8>(), 0..300),
        frame in prop::collection::vec(any::<u8>(), 0..300), len in 0usize..5000,
    ) {
        let mut out = vec![0; len];
        let _ = Decoder::new().decode_delta(&base, &frame, &mut out);
    }
}

fn base_of<'b>(bytes: &'b [u8], depth: u8) -> DeltaBase<'b> {
    DeltaBase { block: 3, leaf: hash::leaf(bytes), depth, bytes }
}

#[test]
fn a_block_becomes_a_difference_only_where_that_is_clearly_smaller() {
    let base = noise(1, 65536);
    let mut near = base.clone();
    near[70..90].fill(0);
    let other = noise(2, 65536);
    for level in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)] {
        let mut encoder = Encoder::new(level, true);
        let mut is_delta = |block: &[u8], base: &DeltaBase<'_>| {
            let encoded = encoder.encode_against(block, hash::leaf(block), base);
            encoded.expect("encodes").is_delta()
        };
        assert!(is_delta(&near, &base_of(&base, 0)) && is_delta(&near, &base_of(&base, 1)));
        assert!(!is_delta(&near, &base_of(&base, 2)), "too deep");
        assert!(!is_delta(&near, &base_of(&base[..65535], 0)), "another length");
        assert!(!is_delta(&other, &base_of(&base, 0)), "nothing in common");
    }
    let mut encoder = Encoder::new(Compression::None, true);
    let encoded = encoder.encode_against(&near, hash::leaf(&near), &base_of(&base, 0));
    assert!(!encoded.expect("encodes").is_delta(), "nothing is to be compressed");
}

#[test]
fn the_head_of_a_difference_names_its_base_and_counts_its_depth() {
    let base = noise(1, 65536);
    let mut near = base.clone();
    near[70..90].fill(0);
    for depth in 0..DELTA_DEPTH_WRITTEN {
        let encoded = Encoder::new(Compression::Zstd(1), true)
            .encode_against(&near, hash::leaf(&near), &base_of(&base, depth))
            .expect("encodes");
        let (head, frame) = DeltaHead::split(&encoded.payload).expect("our own");
        let wanted = DeltaHead { base_block: 3, base_leaf: hash::leaf(&base), depth: depth + 1 };
        assert_eq!(head, wanted);
        let mut back = vec![0; 65536];
        Decoder::new().decode_delta(&base, frame, &mut back).expect("our own");
        assert!(back == near);
    }
}

#[test]
fn a_difference_of_two_zstd_frames_is_refused() {
    let frame = compress_delta(1, &noise(1, 500), &noise(2, 1000)).expect("compresses");
    let mut out = vec![0; 1000];
    let base = noise(2, 1000);
    assert!(Decoder::new().decode_delta(&base, &frame.repeat(2), &mut out).is_err());
    assert!(Decoder::new().decode_delta(&base, &frame, &mut out[..500]).is_ok());
}

#[test]
fn random_bytes_are_stored_as_they_are_and_text_is_not() {
    let random = noise(1, 65536);
    let text: Vec<u8> = (0..65536u32).map(|i| b"the quick brown fox "[i as usize % 20]).collect();
    let mut encoder = Encoder::new(Compression::Zstd(1), false);
    assert_eq!(encoder.encode(&random, Digest::default()).expect("fits").codec, CODEC_NONE);
    assert_eq!(encoder.encode(&text, Digest::default()).expect("fits").codec, CODEC_ZSTD);
}

#[test]
fn the_probe_knows_random_from_structured_bytes() {
    assert!((0..200).all(|seed| looks_incompressible(&noise(seed, 65536))));
    let mut half = noise(7, 65536);
    half.iter_mut().for_each(|b| *b &= 0x7f);
    assert!(!looks_incompressible(&half));
}

#[test]
fn a_payload_of_two_zstd_frames_is_refused() {
    let frame = zstd::bulk::compress(&[7; 500], 1).expect("compresses");
    let mut out = vec![0; 1000];
    assert!(Decoder::new().decode(CODEC_ZSTD, &frame.repeat(2), &mut out).is_err());
    assert!(Decoder::new().decode(CODEC_ZSTD, &frame, &mut out[..500]).is_ok());
}

#[test]
fn a_zstd_bomb_is_refused_without_its_memory() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("compresses");
    let mut out = vec![0; 65536];
    assert!(Decoder::new().decode(CODEC_ZSTD, &bomb, &mut out).is_err());
}

/// Payloads that would become up to 64 MiB, with windows of up to 128 MiB; the last fit a block.
fn bombs() -> Vec<(u8, Vec<u8>)> {
    let mut bombs = Vec::new();
    for (period, len) in
        [(1, 64 << 20), (3, 1 << 20), (4093, 65_537), (70_000, 300_000), (9, 65_536)]
    {
        let plain: Vec<u8> = noise(period as u64, period).into_iter().cycle().take(len).collect();
        bombs.push((CODEC_LZ4, lz4_flex::block::compress(&plain)));
        for (window, says_len) in [(10, true), (17, false), (27, true), (27, false)] {
            let mut context = zstd_safe::CCtx::create();
            for parameter in [
                zstd_safe::CParameter::WindowLog(window),
                zstd_safe::CParameter::ContentSizeFlag(says_len),
            ] {
                context.set_parameter(parameter).expect("a window");
            }
            let mut out = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
            context.compress2(&mut out, &plain).expect("compresses");
            bombs.push((CODEC_ZSTD, out));
        }
    }
    bombs
}

#[test]
fn bombs_of_every_shape_take_no_more_memory_than_the_block_and_one_context() {
    let (bombs, base) = (bombs(), noise(9, 65536));
    let mut random = Random::new(&[32]);
    let mut decoder = Decoder::new();
    let mut out = vec![0; 65536 + 1];
    let mut context = None;
    let (mut refused, mut filled) = (0, 0);
    for _ in 0..BOMBS {
        let (codec, bomb) = &bombs[random.below(bombs.len())];
        let mut payload = bomb.clone();
        // Most of a frame is decided in its first bytes: window, lengths, kinds of blocks.
        for _ in 0..random.below(4) {
            let near = if random.below(3) > 0 { 24 } else { payload.len() };
            let at = random.below(near.min(payload.len()));
            payload[at] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            payload.truncate(random.below(payload.len()) + 1);
        }
        let len = if random.below(2) == 0 { 65536 } else { random.below(65536) + 1 };
        out[len] = 0x5a;
        let done = match (*codec, random.below(3)) {
            (CODEC_ZSTD, 0) => decoder.decode_delta(&base, &payload, &mut out[..len]),
            (codec, _) => decoder.decode(codec, &payload, &mut out[..len]),
        };
        if done.is_ok() {
            filled += 1;
        } else {
            refused += 1;
        }
        assert_eq!(out[len], 0x5a, "a byte behind the block was written");
        let now = decoder.zstd.as_ref().map(zstd_safe::DCtx::sizeof);
        context = context.or(now);
        assert_eq!(now, context, "the context has grown");
    }
    assert!(context.is_some_and(|size| size < 256 << 10), "{context:?}");
    assert!(refused > BOMBS / 2 && filled > 0, "{refused} refused, {filled} filled");
}

const BOMBS: usize = 20_000;
