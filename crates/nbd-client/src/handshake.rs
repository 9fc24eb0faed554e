//! From a connection to an export.

use aiv_nbd_protocol::{
    Broken, ExportInfo, Greeting, Info, Opt, OptionReply, OptionReplyKind, REFUSED_TLS_REQUIRED,
    REFUSED_UNSUPPORTED, Uri, export_name_reply, export_name_reply_len, go, meta_context, option,
    refusal_name, set_meta_context,
};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::stream::Stream;

/// Replies to one option that are read at most: one for each context or piece of information. All
/// bitmaps of a disk are listed, whether they are asked for or not.
const REPLIES_MAX: usize = 4096;
/// Contexts of one kind that are looked at: a server that has more keeps the rest to itself.
const LISTED_MAX: usize = 16;
/// Requests of a server that says nothing about them: whole sectors, where the disk has those.
const MINIMUM: u32 = 512;
const MAXIMUM: u32 = 32 << 20;

/// What was agreed on.
pub(crate) struct Agreed {
    pub(crate) connection: Connection,
    pub(crate) export: ExportInfo,
    /// Bytes of a request: a multiple of the first, at most the second.
    pub(crate) sizes: (u32, u32),
}

/// How an option ended.
enum End {
    Done,
    Refused(u32, String),
}

/// Asks for `contexts`, and for those the server has whose names begin with `listed`.
pub(crate) fn shake(
    mut stream: Stream,
    uri: &Uri,
    contexts: &[&str],
    listed: Option<&str>,
) -> Result<Agreed> {
    let greeting = Greeting::from_bytes(&stream.array().map_err(Error::Io)?)?;
    stream.send(&greeting.answer()).map_err(Error::Io)?;
    let structured = ask(&mut stream, Opt::StructuredReply, &[], |_, _| Ok(()))?;
    let is_structured = match structured {
        End::Done => true,
        End::Refused(REFUSED_TLS_REQUIRED, _) => return Err(Error::Tls),
        End::Refused(..) => false,
    };
    let mut known = Vec::new();
    if is_structured && !contexts.is_empty() {
        let found = listed.map(|listed| list(&mut stream, uri, listed)).transpose()?;
        let found = found.unwrap_or_default();
        let more = found.iter().map(String::as_str).filter(|name| !contexts.contains(name));
        let contexts: Vec<&str> = contexts.iter().copied().chain(more).collect();
        let data = set_meta_context(&uri.export, &contexts)?;
        let end = ask(&mut stream, Opt::SetMetaContext, &data, |kind, data| {
            if kind == OptionReplyKind::MetaContext {
                let (id, name) = meta_context(data)?;
                // Others were not asked for, however many there are.
                if contexts.contains(&name) && known.len() < contexts.len() {
                    known.push((id, name.to_owned()));
                }
            }
            Ok(())
        })?;
        // A server without contexts has a disk all the same.
        if matches!(end, End::Refused(..)) {
            known.clear();
        }
    }
    let (mut export, mut sizes) = (None, None);
    let end = ask(&mut stream, Opt::Go, &go(&uri.export)?, |kind, data| {
        if kind == OptionReplyKind::Info {
            match Info::from_bytes(data)? {
                Info::Export(found) => export = Some(found),
                Info::BlockSize { minimum, maximum } => sizes = Some((minimum, maximum)),
                Info::Other => {}
            }
        }
        Ok(())
    })?;
    let export = match end {
        End::Done => export.ok_or_else(|| Broken::new("it gives an export without its size"))?,
        End::Refused(REFUSED_TLS_REQUIRED, _) => return Err(Error::Tls),
        End::Refused(REFUSED_UNSUPPORTED, _) => by_name(&mut stream, greeting, &uri.export)?,
        End::Refused(refused, text) => {
            let name = refusal_name(refused);
            let why = if text.is_empty() { name.into() } else { format!("{name} ({text})") };
            return Err(Error::Refused { export: uri.export.clone(), why });
        }
    };
    let has_sectors = export.size.is_multiple_of(MINIMUM.into());
    let sizes = sizes.unwrap_or((if has_sectors { MINIMUM } else { 1 }, MAXIMUM));
    if !export.size.is_multiple_of(sizes.0.into()) {
        return Err(Error::Odd { size: export.size, minimum: sizes.0 });
    }
    let connection = Connection::new(stream, is_structured, known);
    Ok(Agreed { connection, export, sizes })
}

/// The contexts the server has whose names begin with `beginning`.
fn list(stream: &mut Stream, uri: &Uri, beginning: &str) -> Result<Vec<String>> {
    let data = set_meta_context(&uri.export, &[beginning])?;
    let mut found: Vec<String> = Vec::new();
    // A server that does not list them is no worse than one that has none.
    ask(stream, Opt::ListMetaContext, &data, |kind, data| {
        if kind == OptionReplyKind::MetaContext {
            let (_, name) = meta_context(data)?;
            let is_new = name.starts_with(beginning) && !found.iter().any(|n| n == name);
            if is_new && found.len() < LISTED_MAX {
                found.push(name.to_owned());
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Sends an option and reads the replies up to the last; `each` gets all but that one.
fn ask(
    stream: &mut Stream,
    opt: Opt,
    data: &[u8],
    mut each: impl FnMut(OptionReplyKind, &[u8]) -> std::result::Result<(), Broken>,
) -> Result<End> {
    stream.send(&option(opt, data)).map_err(Error::Io)?;
    for _ in 0..REPLIES_MAX {
        let reply = OptionReply::from_bytes(&stream.array().map_err(Error::Io)?, opt)?;
        // At most 64 KiB.
        let mut payload = vec![0; usize::try_from(reply.len).unwrap_or_default()];
        stream.receive(&mut payload).map_err(Error::Io)?;
        match reply.kind {
            OptionReplyKind::Ack => return Ok(End::Done),
            OptionReplyKind::Refused(refused) => {
                let text = String::from_utf8_lossy(&payload).replace(char::is_control, " ");
                return Ok(End::Refused(refused, text.trim().to_owned()));
            }
            kind => each(kind, &payload)?,
        }
    }
    Err(Broken::new(format!("more than {REPLIES_MAX} replies to {opt:?}")).into())
}

/// The way of servers that do not know [`Opt::Go`]: one that does not know the name either
/// closes the connection.
fn by_name(stream: &mut Stream, greeting: Greeting, export: &str) -> Result<ExportInfo> {
    stream.send(&option(Opt::ExportName, export.as_bytes())).map_err(Error::Io)?;
    let mut reply = vec![0; export_name_reply_len(greeting)];
    stream.receive(&mut reply).map_err(Error::Io)?;
    Ok(export_name_reply(&reply)?)
}
