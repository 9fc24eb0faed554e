//! The program in a browser: Debian's Chromium, with real keys and clicks, and whoever else speaks
//! HTTP.

mod accessible;
mod answers;
mod browser;
mod disk;
mod hostile;
mod http;
mod journeys;
mod looks;
mod served;
