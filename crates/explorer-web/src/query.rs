//! The words after the question mark of an address.

use percent_encoding::percent_decode_str;

/// The value of a name that is there once, as bytes.
pub(crate) fn value(query: Option<&str>, name: &str) -> Option<Vec<u8>> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(percent_decode_str(value).collect()),
        _ => None,
    }
}

/// The same as a number.
pub(crate) fn number<T: std::str::FromStr>(query: Option<&str>, name: &str) -> Option<T> {
    std::str::from_utf8(&value(query, name)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_any_bytes_and_stands_there_once() {
        let query = Some("disk=4&path=%2Fp1%2fa%26%FF&x=1&x=2&y");
        assert_eq!(value(query, "path"), Some(b"/p1/a&\xff".to_vec()));
        assert_eq!(number::<u64>(query, "disk"), Some(4));
        assert_eq!((value(query, "x"), value(query, "y"), value(query, "z")), (None, None, None));
        assert_eq!(number::<u64>(Some("disk=-1"), "disk"), None);
        assert_eq!(value(None, "disk"), None);
    }
}
