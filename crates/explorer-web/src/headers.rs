//! What every answer says about itself.

use axum::http::{HeaderMap, HeaderValue, header};

/// What a page of ours may do: run our own scripts, ask us, and nothing else.
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                    connect-src 'self'; base-uri 'none'; form-action 'none'; \
                    frame-ancestors 'none'; require-trusted-types-for 'script'; \
                    trusted-types 'none'";
/// What contents of an image may do, should a browser show them after all.
pub(crate) const CONTENTS: &str = "default-src 'none'; sandbox; base-uri 'none'; \
                                   form-action 'none'; frame-ancestors 'none'";

const ALWAYS: [(&str, &str); 9] = [
    ("cache-control", "no-store"),
    ("content-security-policy", PAGE),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// Adds what is not there yet.
pub(crate) fn add_to(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    // What is not said to be something is not guessed to be a page.
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.entry(header::CONTENT_TYPE).or_insert(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_forbids_what_is_not_needed_and_contents_forbid_everything() {
        let mut headers = HeaderMap::new();
        add_to(&mut headers);
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"));
        for word in ["unsafe", "http", "data:", "*", "blob:"] {
            assert!(!policy.contains(word), "{word}");
        }
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        let mut contents = HeaderMap::new();
        contents.insert("content-security-policy", HeaderValue::from_static(CONTENTS));
        add_to(&mut contents);
        assert_eq!(contents["content-security-policy"], CONTENTS);
        assert_eq!(contents.get_all("content-security-policy").iter().count(), 1);
        assert!(CONTENTS.contains("; sandbox;"));
    }
}
