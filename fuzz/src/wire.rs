//! What servers say.

use aiv_nbd_protocol::{
    Chunk, Greeting, Info, Opt, OptionReply, Reply, Uri, error_payload, export_name_reply,
    meta_context, reply_kind, status_payload,
};

/// The messages of an NBD server, each kind from the front of the bytes, and the text of a URI.
pub fn nbd(data: &[u8]) -> bool {
    if let Some(bytes) = data.first_chunk() {
        let _ = Greeting::from_bytes(bytes).map(Greeting::answer);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = OptionReply::from_bytes(bytes, Opt::Go);
    }
    let _ = Info::from_bytes(data);
    let _ = meta_context(data);
    let _ = export_name_reply(data);
    if let Some(bytes) = data.first_chunk() {
        let _ = reply_kind(*bytes);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = Reply::from_bytes(bytes, 1);
    }
    if let Some(bytes) = data.first_chunk() {
        let _ = Chunk::from_bytes(bytes, 1);
    }
    let _ = error_payload(data);
    if let Ok((_, runs)) = status_payload(data) {
        assert!(runs.len() * 8 <= data.len() && runs.iter().all(|(len, _)| *len > 0));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(uri) = text.parse::<Uri>()
    {
        let again: Uri = uri.to_string().parse().expect("what a URI is written as is one");
        assert_eq!(again, uri);
    }
    true
}
