//! The campaign: `cargo run --release -p aiv-explorer-model --example random_sequences -- 100000`.

#[path = "../tests/it/player.rs"]
mod player;
#[path = "../tests/it/samples.rs"]
mod samples;

fn main() {
    let number = |at: usize, otherwise: u64| {
        let word = std::env::args().nth(at).map(|word| word.parse().expect("a number"));
        word.unwrap_or(otherwise)
    };
    let (count, first) = (number(1, 100_000), number(2, 1));
    let deepest = (first..first + count).map(player::play).max().unwrap_or(0);
    std::io::Write::write_fmt(
        &mut std::io::stdout(),
        format_args!("{count} sequences from seed {first}, at most {deepest} screens deep\n"),
    )
    .expect("standard output");
}
