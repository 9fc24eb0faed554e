//! The program in a browser: Debian's Chromium, with real keys and clicks, and whoever else speaks
//! HTTP.

mod browser;
mod http;
mod looks;
mod served;
