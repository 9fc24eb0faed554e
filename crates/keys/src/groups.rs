//! How keys are written on paper: groups of five symbols, the fifth of each a check.

use zeroize::Zeroizing;

use crate::{Result, TextError, base32};

const GROUP: usize = 5;
const DATA: usize = GROUP - 1;

/// Symbols of a text of this many bytes, without the dashes. All groups are full.
pub(crate) const fn symbols(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5 * DATA) * GROUP
}

/// The text of `bytes`: `XXXXX-XXXXX-` and so on.
pub(crate) fn text(bytes: &[u8]) -> Zeroizing<String> {
    let symbols = symbols(bytes.len());
    let mut text = Zeroizing::new(String::with_capacity(symbols + symbols / GROUP));
    let values = Zeroizing::new(base32::values(bytes).collect::<Vec<_>>());
    for (number, group) in values.chunks(DATA).enumerate() {
        if number > 0 {
            text.push('-');
        }
        group.iter().for_each(|&value| text.push(base32::symbol(value)));
        text.push(base32::symbol(check_symbol(number, group)));
    }
    text
}

/// The groups of a text as people type it: lines that begin with `#` are left out.
fn groups(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.trim_start_matches(is_gap).starts_with('#'));
    lines.flat_map(move |line| line.split(is_gap)).filter(|group| !group.is_empty())
}

/// What stands between groups: any dash, space or line end, and the mark some editors begin with.
fn is_gap(c: char) -> bool {
    matches!(c, '-' | '_' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{feff}') || c.is_whitespace()
}

fn symbols_in(text: &str) -> usize {
    groups(text).map(|group| group.chars().count()).sum()
}

/// Whether a text is of this many bytes, and not of `other`: by its symbols, or else, where one is
/// missing, by its groups.
pub(crate) fn is_of(text: &str, bytes: usize, other: usize) -> bool {
    let found = symbols_in(text);
    let as_printed = groups(text).count() == symbols(bytes) / GROUP;
    found == symbols(bytes) || found != symbols(other) && as_printed
}

/// Whether a text, as a name of a file, looks like one that was printed: nothing else is in it.
pub(crate) fn is_printed(text: &str, bytes: usize) -> bool {
    let is_group = |group: &str| {
        group.chars().count() == GROUP && group.chars().all(|c| base32::value(c).is_some())
    };
    groups(text).count() == symbols(bytes) / GROUP && groups(text).all(is_group)
}

/// Reads the bytes of a text, of which there are as many as `out` has.
///
/// # Errors
/// [`crate::Error::Text`], which names the group that is wrong.
pub(crate) fn parse(text: &str, out: &mut [u8]) -> Result<()> {
    let (symbols, found) = (symbols(out.len()), symbols_in(text));
    if found != symbols {
        // As it was printed, the group that a symbol is missing in can be named.
        let as_printed = groups(text).count() == symbols / GROUP;
        let lens = groups(text).map(|group| group.chars().count());
        return Err(match (1..).zip(lens).find(|(_, len)| *len != GROUP) {
            Some((group, found)) if as_printed => TextError::GroupLength { group, found },
            _ => TextError::Symbols { found },
        }
        .into());
    }
    let mut values = Zeroizing::new(Vec::with_capacity(symbols));
    for symbol in groups(text).flat_map(str::chars) {
        let group = values.len() / GROUP + 1;
        values.push(base32::value(symbol).ok_or(TextError::Character { group })?);
    }
    for (number, group) in values.chunks(GROUP).enumerate() {
        if check_symbol(number, &group[..DATA]) != group[DATA] {
            return Err(TextError::Mistyped { group: number + 1 }.into());
        }
    }
    let data = values.chunks(GROUP).flat_map(|group| group[..DATA].iter().copied());
    if base32::bytes(data, out) {
        return Ok(());
    }
    // The bits that fill the last group are not zero.
    Err(TextError::Mistyped { group: symbols / GROUP }.into())
}

/// Over GF(32): the sum of the symbols, the i-th times the i-th power of x, plus the number of
/// the group. All weights differ, and differ from the 1 of the check symbol itself, so exchanging
/// two different symbols of a group changes the sum.
fn check_symbol(group: usize, data: &[u8]) -> u8 {
    let number = u8::try_from(group % 32).unwrap_or(0);
    data.iter().rev().fold(0, |sum, &value| times_x(sum ^ value)) ^ number
}

/// Multiplies by x modulo x^5 + x^2 + 1.
fn times_x(value: u8) -> u8 {
    let doubled = value << 1;
    if doubled & 32 == 0 { doubled } else { doubled ^ 0b10_0101 }
}
