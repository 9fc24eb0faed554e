//! Sealed images that build on sealed images, and frames copied between them.
