//! The record of a file or folder.

use super::super::boot::{Geometry, Width};
use crate::bytes::{le16, le32};
use crate::clusters::dos_time;
use crate::{FileFlags, FileType, Metadata, Timestamp};

const READ_ONLY: u8 = 0x01;
const HIDDEN: u8 = 0x02;
const SYSTEM: u8 = 0x04;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
/// Attributes that have a meaning.
const ATTRIBUTES: u8 = 0x3f;
const LONG_NAME: u8 = READ_ONLY | HIDDEN | SYSTEM | VOLUME_LABEL;

pub(super) type Record = [u8; 32];

/// What a record of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// This record and all behind it were never used.
    End,
    Deleted,
    /// A piece of the long name of the record behind it.
    LongName,
    Label,
    /// The folder itself, or the one it is in.
    DotOrDotDot,
    File,
    Folder,
}

pub(super) fn role(record: &Record) -> Role {
    const DELETED: u8 = 0xe5;
    let attributes = record[11];
    match record[0] {
        0 => return Role::End,
        DELETED => return Role::Deleted,
        _ => {}
    }
    if attributes & ATTRIBUTES == LONG_NAME {
        Role::LongName
    } else if attributes & VOLUME_LABEL != 0 {
        Role::Label
    } else if matches!(&record[..11], b".          " | b"..         ") {
        Role::DotOrDotDot
    } else if attributes & FOLDER != 0 {
        Role::Folder
    } else {
        Role::File
    }
}

pub(super) fn first_cluster(record: &Record, geometry: &Geometry) -> u32 {
    // Before FAT32 the upper half was something else.
    let high = if geometry.width == Width::Fat32 { le16(record, 20) } else { 0 };
    u32::from(high) << 16 | u32::from(le16(record, 26))
}

pub(super) fn len(record: &Record) -> u32 {
    le32(record, 28)
}

pub(super) fn metadata(record: &Record) -> Metadata {
    let attributes = record[11];
    let is = |bit| attributes & bit != 0;
    let file_type = if is(FOLDER) { FileType::Folder } else { FileType::File };
    let time = |date, time, hundredths| -> Option<Timestamp> {
        dos_time(le16(record, date), time, hundredths)
    };
    Metadata {
        len: len(record).into(),
        modified: time(24, le16(record, 22), 0),
        accessed: time(18, 0, 0),
        created: time(16, le16(record, 14), record[13]),
        flags: FileFlags::default()
            .with(FileFlags::READ_ONLY, is(READ_ONLY))
            .with(FileFlags::HIDDEN, is(HIDDEN))
            .with(FileFlags::SYSTEM, is(SYSTEM))
            .with(FileFlags::ARCHIVE, is(ARCHIVE)),
        ..Metadata::of(file_type)
    }
}
