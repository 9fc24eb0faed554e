//! The name a download gets: RFC 6266, with RFC 8187 for what is not ASCII.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters of the longest name.
const LEN_MAX: usize = 255;
/// What stands for itself in an extended value: letters, digits, and these.
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The header of a download that is to be called `name`, whatever bytes that is.
pub(crate) fn attachment(name: &[u8], ending: &str) -> String {
    let mut name = safe(&String::from_utf8_lossy(name));
    name.push_str(ending);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let extended = utf8_percent_encode(&name, EXTENDED);
    match plain == name {
        true => format!("attachment; filename=\"{plain}\""),
        false => format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}"),
    }
}

/// A name that is one on any system: nothing leads elsewhere, acts, or is read in another order.
fn safe(name: &str) -> String {
    let safe = |c: char| {
        let leads = matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
        let acts = c.is_control() || c == char::REPLACEMENT_CHARACTER;
        let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if leads || acts || turns { '_' } else { c }
    };
    let name: String = name.chars().map(safe).take(LEN_MAX).collect();
    // Neither hidden nor a way up, and no blanks that some systems take away.
    let name = name.trim().trim_start_matches('.').trim_end_matches(['.', ' ']);
    if name.is_empty() { "file".to_owned() } else { name.to_owned() }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '(' | ')' | '+' | ',' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &[u8], header: &str) {
        assert_eq!(attachment(name, ""), header, "{:?}", String::from_utf8_lossy(name));
    }

    #[test]
    fn a_name_comes_through_and_what_is_not_ascii_comes_twice() {
        check(b"hello.txt", "attachment; filename=\"hello.txt\"");
        check(b"a b (1)", "attachment; filename=\"a b (1)\"");
        let umlauts = "attachment; filename=\"gr__e.txt\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt";
        check("gr\u{f6}\u{df}e.txt".as_bytes(), umlauts);
        check(b"50%", "attachment; filename=\"50_\"; filename*=UTF-8''50%25");
        assert_eq!(attachment(b"etc", ".zip"), "attachment; filename=\"etc.zip\"");
    }

    #[test]
    fn no_name_adds_a_header_leads_elsewhere_or_pretends() {
        check(b"a\r\nSet-Cookie: x=y", "attachment; filename=\"a__Set-Cookie_ x=y\"");
        check(
            b"a\"; filename=\"b",
            "attachment; filename=\"a__ filename=_b\"; filename*=UTF-8''a_%3B%20filename%3D_b",
        );
        check(b"../../etc/passwd", "attachment; filename=\"_.._etc_passwd\"");
        check(b"..\\evil", "attachment; filename=\"_evil\"");
        check(b"C:evil", "attachment; filename=\"C_evil\"");
        check(b"..", "attachment; filename=\"file\"");
        check(b"", "attachment; filename=\"file\"");
        check(b". .", "attachment; filename=\"file\"");
        check(b".bashrc", "attachment; filename=\"bashrc\"");
        check("photo\u{202e}gpj.exe".as_bytes(), "attachment; filename=\"photo_gpj.exe\"");
        check(b"\xff\xfe", "attachment; filename=\"__\"");
        check(b"a\0b\x7f", "attachment; filename=\"a_b_\"");
    }

    #[test]
    fn whatever_the_bytes_are_the_header_is_one_line_of_ascii_with_two_quotes() {
        let mut bytes = Vec::new();
        for seed in 0..2000_u32 {
            bytes.push(seed.wrapping_mul(2_654_435_761).to_le_bytes()[2]);
            let header = attachment(bytes.get(bytes.len().saturating_sub(40)..).unwrap(), "");
            assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{header}");
            assert_eq!(header.matches('"').count(), 2, "{header}");
            assert!(header.starts_with("attachment; filename=\""));
        }
        assert!(attachment(&[b'x'; 9000], "").len() < 300);
    }
}
