//! The page, as it is part of the program.

/// A file of the page.
pub(crate) struct Asset {
    /// Its name below the root.
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

const fn asset(name: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    Asset { name, content_type, text }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// All of them; the first is what a browser is shown.
pub(crate) const ASSETS: &[Asset] = &[
    asset("", HTML, include_str!("assets/index.html")),
    asset("explorer.css", CSS, include_str!("assets/explorer.css")),
    asset("content.css", CSS, include_str!("assets/content.css")),
    asset("explorer.js", SCRIPT, include_str!("assets/explorer.js")),
    asset("dialogs.js", SCRIPT, include_str!("assets/dialogs.js")),
    asset("dom.js", SCRIPT, include_str!("assets/dom.js")),
    asset("list.js", SCRIPT, include_str!("assets/list.js")),
    asset("pictures.js", SCRIPT, include_str!("assets/pictures.js")),
    asset("talk.js", SCRIPT, include_str!("assets/talk.js")),
    asset("icon.svg", SVG, include_str!("assets/icon.svg")),
];

#[cfg(test)]
mod tests {
    use super::ASSETS;

    #[test]
    fn nothing_of_the_page_comes_from_elsewhere_or_makes_markup_of_text() {
        for asset in ASSETS {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "http:",
                "https:",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
                "new Function",
                "style=",
                "onclick=",
                "onerror=",
                "javascript:",
            ] {
                assert!(!text.contains(word), "{}: {word}", asset.name);
            }
        }
    }
}
