//! Who is answered: a browser on this machine that was given the address, and pages of ours in it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, Method, StatusCode, header};
use blake3::Hash;

/// Random bytes a guard is made of.
pub const SECRET_BYTES: usize = 64;
/// What each secret is made of.
const ONE_BYTES: usize = SECRET_BYTES / 4;
/// The name of the cookie.
const COOKIE: &str = "aiv-explorer";
/// The header that has the run.
pub(crate) const RUN: &str = "aiv-explorer-run";
/// What follows the place in the address that is printed.
pub(crate) const ENTER: &str = "enter";

/// Says who is answered.
///
/// Four secrets: the *place* is in every address, so that nothing else on this machine, on
/// whatever port, is sent the cookie; the *token* is in the address that is printed, and is good
/// for one visit; the *cookie* is what that visit gets. The *run* is told to whoever has the cookie,
/// in the page and in every answer, and is never sent back: a program that takes the port
/// afterwards, and is sent the cookie, does not know it.
pub(crate) struct Guard {
    host: String,
    place: String,
    token: String,
    cookie: String,
    run: String,
    is_used: AtomicBool,
}

/// A request that is not answered, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

const fn refusal(status: StatusCode, why: &'static str) -> Refusal {
    Refusal { status, why }
}

const NOT_HERE: Refusal = refusal(StatusCode::NOT_FOUND, "nothing is here");
const OTHER_HOST: Refusal =
    refusal(StatusCode::MISDIRECTED_REQUEST, "this is not the name of the explorer");
const OTHER_METHOD: Refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "that is not done here");
const OTHER_SITE: Refusal = refusal(StatusCode::FORBIDDEN, "another page asked for this");
const OTHER_KIND: Refusal =
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not what it has to be");
const NO_COOKIE: Refusal = refusal(
    StatusCode::FORBIDDEN,
    "open the address that the explorer printed; it works once, in one browser. Where it was used \
     already, start the explorer again.",
);

/// What pages of ours send.
pub(crate) const BODY: &str = "application/json";

impl Guard {
    /// For an explorer that listens on `port`.
    pub(crate) fn new(secret: &[u8; SECRET_BYTES], port: u16) -> Self {
        let mut parts = secret.chunks(ONE_BYTES).map(hex);
        let mut part = || parts.next().unwrap_or_default();
        Self {
            host: format!("127.0.0.1:{port}"),
            place: part(),
            token: part(),
            cookie: part(),
            run: part(),
            is_used: AtomicBool::new(false),
        }
    }

    /// The address to print.
    pub(crate) fn address(&self) -> String {
        format!("http://{}/{}/{ENTER}?token={}", self.host, self.place, self.token)
    }

    /// What all paths begin with, with a slash at both ends.
    pub(crate) fn root(&self) -> String {
        format!("/{}/", self.place)
    }

    /// What tells this explorer from any other program, for those who have the cookie.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Exchanges the token for what the cookie is set to, once.
    pub(crate) fn enter(&self, token: &str) -> Option<String> {
        let fits = is_same(token, &self.token);
        let is_first = fits && !self.is_used.swap(true, Ordering::SeqCst);
        let (cookie, root) = (&self.cookie, self.root());
        is_first.then(|| format!("{COOKIE}={cookie}; Path={root}; HttpOnly; SameSite=Strict"))
    }

    /// Why a request is not answered, if it is not.
    pub(crate) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        // A name that somebody else made point here is another one: DNS rebinding.
        if only(headers, header::HOST.as_str()) != Some(self.host.as_str()) {
            return Err(OTHER_HOST);
        }
        let is_post = match *method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Err(OTHER_METHOD),
        };
        let Some(rest) = path.strip_prefix(&self.root()) else { return Err(NOT_HERE) };
        // Browsers tell who asks; others do not.
        let site = only(headers, "sec-fetch-site").unwrap_or("none");
        if headers.get_all("sec-fetch-site").iter().count() > 1
            || !matches!(site, "same-origin" | "none")
        {
            return Err(OTHER_SITE);
        }
        if is_post {
            let origin = only(headers, header::ORIGIN.as_str());
            if origin.and_then(|origin| origin.strip_prefix("http://")) != Some(&self.host) {
                return Err(OTHER_SITE);
            }
            if only(headers, header::CONTENT_TYPE.as_str()) != Some(BODY) {
                return Err(OTHER_KIND);
            }
        }
        if rest != ENTER && !self.has_cookie(headers) {
            return Err(NO_COOKIE);
        }
        Ok(())
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|p| p.split_once('='));
        pairs.any(|(name, value)| name.trim() == COOKIE && is_same(value.trim(), &self.cookie))
    }
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether two texts are the same. How long that takes tells nothing about them: hashes compare in
/// constant time.
fn is_same(one: &str, other: &str) -> bool {
    let hash = |text: &str| -> Hash { blake3::hash(text.as_bytes()) };
    hash(one) == hash(other)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn guard() -> Guard {
        let mut secret = [0; SECRET_BYTES];
        secret.iter_mut().zip(1..).for_each(|(byte, at)| *byte = at);
        Guard::new(&secret, 4000)
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&str, &str)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        // One that comes twice stays twice.
        list.iter().map(pair).fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(name, value);
            all
        })
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:4000");
    const ORIGIN: (&str, &str) = ("origin", "http://127.0.0.1:4000");
    const JSON: (&str, &str) = ("content-type", BODY);

    fn cookie(guard: &Guard) -> String {
        guard.enter(&guard.token).unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn the_token_is_good_for_one_visit_and_what_it_gets_is_kept_from_scripts_and_other_sites() {
        let guard = guard();
        assert_eq!(guard.enter(""), None);
        assert_eq!(guard.enter(&guard.cookie), None);
        assert!(guard.address().ends_with(&format!("/enter?token={}", guard.token)));
        let set = guard.enter(&guard.token).unwrap();
        let rest = format!("; Path=/{}/; HttpOnly; SameSite=Strict", guard.place);
        assert_eq!(set, format!("aiv-explorer={}{rest}", guard.cookie));
        assert_eq!(guard.enter(&guard.token), None);
    }

    #[test]
    fn the_secrets_have_nothing_in_common() {
        let guard = guard();
        let mut all = [&guard.place, &guard.token, &guard.cookie, &guard.run];
        assert!(all.iter().all(|secret| secret.len() == 32));
        all.sort();
        assert!(all.windows(2).all(|two| two[0] != two[1]), "{all:?}");
    }

    #[test]
    fn nobody_is_answered_without_the_cookie_but_at_the_door() {
        let guard = guard();
        let root = guard.root();
        let get = |path: &str, list: &[(&str, &str)]| {
            guard.check(&Method::GET, path, &headers(list)).map_err(|refusal| refusal.status)
        };
        assert_eq!(get(&format!("{root}enter"), &[HOST]), Ok(()));
        let forbidden = Err(StatusCode::FORBIDDEN);
        let cookie = cookie(&guard);
        let wrong = cookie.replace('1', "2");
        assert_eq!(get(&root, &[HOST]), forbidden);
        assert_eq!(get(&root, &[HOST, ("cookie", &wrong)]), forbidden);
        assert_eq!(get(&root, &[HOST, ("cookie", "aiv-explorer=")]), forbidden);
        let others = format!("a=b; {cookie}; c=d");
        assert_eq!(get(&root, &[HOST, ("cookie", &others)]), Ok(()));
        assert_eq!(get(&root, &[HOST, ("cookie", "a=b"), ("cookie", &cookie)]), Ok(()));
        for path in ["/", "/enter", "//", "/0123/", &root[..root.len() - 1], "*", ""] {
            let answer = get(path, &[HOST, ("cookie", &cookie)]);
            assert_eq!(answer, Err(StatusCode::NOT_FOUND), "{path:?}");
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_not_answered() {
        let guard = guard();
        let (root, cookie) = (guard.root(), cookie(&guard));
        let check = |list: &[(&str, &str)]| {
            let list = [list, &[("cookie", cookie.as_str())]].concat();
            guard.check(&Method::GET, &root, &headers(&list))
        };
        assert_eq!(check(&[HOST]), Ok(()));
        for host in
            ["evil.example:4000", "localhost:4000", "127.0.0.1", "127.0.0.1:4001", "", "[::1]:4000"]
        {
            assert_eq!(check(&[("host", host)]), Err(OTHER_HOST), "{host}");
        }
        assert_eq!(check(&[]), Err(OTHER_HOST));
        assert_eq!(check(&[HOST, HOST]), Err(OTHER_HOST));
    }

    #[test]
    fn pages_of_others_ask_and_tell_nothing() {
        let guard = guard();
        let (root, cookie) = (guard.root(), cookie(&guard));
        let check = |method: Method, list: &[(&str, &str)]| {
            let list = [list, &[HOST, ("cookie", cookie.as_str())]].concat();
            guard.check(&method, &root, &headers(&list)).map_err(|refusal| refusal.status)
        };
        let forbidden = Err(StatusCode::FORBIDDEN);
        for site in ["cross-site", "same-site", "", "none, none"] {
            assert_eq!(check(Method::GET, &[("sec-fetch-site", site)]), forbidden, "{site}");
        }
        let twice = [("sec-fetch-site", "none"), ("sec-fetch-site", "same-origin")];
        assert_eq!(check(Method::GET, &twice), forbidden);
        assert_eq!(check(Method::GET, &[("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(check(Method::POST, &[ORIGIN, JSON]), Ok(()));
        assert_eq!(check(Method::POST, &[JSON]), forbidden);
        for origin in
            ["null", "http://evil.example", "https://127.0.0.1:4000", "http://127.0.0.1:40001"]
        {
            assert_eq!(check(Method::POST, &[("origin", origin), JSON]), forbidden, "{origin}");
        }
        let forms = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""];
        for form in forms {
            let answer = check(Method::POST, &[ORIGIN, ("content-type", form)]);
            assert_eq!(answer, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{form}");
        }
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::CONNECT]
        {
            assert_eq!(check(method, &[ORIGIN]), Err(StatusCode::METHOD_NOT_ALLOWED));
        }
    }
}
