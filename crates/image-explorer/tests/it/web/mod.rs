//! The program in a browser: Debian's Chromium, with real keys and clicks, and whoever else speaks
//! HTTP.

mod accessible;
mod answers;
pub(crate) mod browser;
pub(crate) mod disk;
mod hostile;
mod http;
mod journeys;
mod looks;
mod secrets;
pub(crate) mod served;
