//! Writes what was gathered into the merged image.

use std::collections::HashMap;

use aiv_image_format::{BlockPlace, Error as ImageError, ImageWriter, IndexEntry, Kind, RowItem};

use crate::error::{Error, Result};
use crate::layers::Layers;
use crate::merge::REMEMBERED_MAX;
use crate::merge::gather::{Batch, Item};

/// Puts batches into a writer.
pub(super) struct Sink<'a, 'f> {
    layers: &'a Layers,
    writer: ImageWriter<'f>,
    /// Name of the file being written, for messages.
    file: &'a str,
    /// Where frames landed, by layer and address. When it is full, later ones are copied again
    /// for each block that needs them.
    places: HashMap<(usize, u64), BlockPlace>,
    /// Whether any image of the run needs a frame for several blocks.
    remembers: bool,
}

/// A part of a batch whose frames are copied without a gap.
#[derive(Default)]
struct Row {
    items: Vec<RowItem>,
    /// Its bytes within those of the batch.
    start: usize,
    end: usize,
}

impl<'a, 'f> Sink<'a, 'f> {
    pub(super) fn new(
        layers: &'a Layers,
        writer: ImageWriter<'f>,
        file: &'a str,
        remembers: bool,
    ) -> Self {
        Self { layers, writer, file, places: HashMap::new(), remembers }
    }

    pub(super) fn into_writer(self) -> ImageWriter<'f> {
        self.writer
    }

    pub(super) fn take(&mut self, batch: &Batch) -> Result<()> {
        let mut row = Row::default();
        for item in &batch.items {
            match item {
                Item::Frame(entry, size) => {
                    let at = in_memory(entry.address - batch.first)?;
                    if row.start < row.end && row.end != at {
                        self.flush(batch, &mut row)?;
                    }
                    if row.start == row.end {
                        (row.start, row.end) = (at, at);
                    }
                    row.end = at + in_memory(*size)?;
                    row.items.push(RowItem::Frame(*entry));
                }
                Item::Run(kind, count) => row.items.push(RowItem::Run(*kind, *count)),
                Item::Inherited(count) => row.items.push(RowItem::Inherited(*count)),
                Item::Parent(block, leaf) => row.items.push(RowItem::Parent(*block, *leaf)),
                Item::Stored(layer, entry) => self.refer(batch, &mut row, *layer, entry)?,
                Item::Anew(stored) => {
                    self.flush(batch, &mut row)?;
                    let gone = Err(ImageError::Misuse("a thread that gave up"));
                    let stored = stored.recv().unwrap_or(gone);
                    let block = stored.map_err(|error| self.layers.explain(error))?;
                    self.writer.push_block(&block).map_err(|e| self.explain(batch.layer, e))?;
                }
            }
        }
        self.flush(batch, &mut row)
    }

    /// A block that has the bytes of a frame which may be there already.
    fn refer(
        &mut self,
        batch: &Batch,
        row: &mut Row,
        layer: usize,
        entry: &IndexEntry,
    ) -> Result<()> {
        if let Some(place) = self.places.get(&(layer, entry.address)) {
            row.items.push(RowItem::Ref(*place, entry.leaf));
            return Ok(());
        }
        let is_it =
            |item: &RowItem| matches!(item, RowItem::Frame(f) if f.address == entry.address);
        let within = row.within(batch).contains(&entry.address);
        if layer == batch.layer && within && row.items.iter().any(is_it) {
            row.items.push(RowItem::Frame(*entry));
            return Ok(());
        }
        self.flush(batch, row)?;
        let image = &self.layers.get(layer).image;
        let in_layer = |e| self.layers.explain(self.layers.in_layer(layer, e));
        let mut bytes = vec![0; in_memory(image.frame_size(entry).map_err(in_layer)?)?];
        image.file().read_exact_at(&mut bytes, entry.address).map_err(|source| {
            in_layer(ImageError::Io { op: "read frame", offset: entry.address, source })
        })?;
        let items = [RowItem::Frame(*entry)];
        let written = self.writer.copy_row(&items, &bytes, None);
        let address = written.map_err(|e| self.explain(layer, e))?;
        self.remember((layer, entry.address), address, entry.frame_size);
        Ok(())
    }

    fn flush(&mut self, batch: &Batch, row: &mut Row) -> Result<()> {
        let Row { items, start, end } = std::mem::take(row);
        if items.is_empty() {
            return Ok(());
        }
        let image = &self.layers.get(batch.layer).image;
        let written = self.writer.copy_row(&items, &batch.bytes()[start..end], Some(image.file()));
        let address = written.map_err(|e| self.explain(batch.layer, e))?;
        if self.remembers {
            for item in &items {
                if let RowItem::Frame(entry) = item
                    && entry.kind == Kind::Data
                {
                    let within = entry.address - (batch.first + start as u64);
                    let key = (batch.layer, entry.address);
                    self.remember(key, address + within, entry.frame_size);
                }
            }
        }
        Ok(())
    }

    /// An error of the writer: damage is that of the frames it was given, the rest its own.
    fn explain(&self, layer: usize, error: ImageError) -> Error {
        match error {
            ImageError::Corrupt(_) => self.layers.explain(self.layers.in_layer(layer, error)),
            error => Error::in_file(self.file, error),
        }
    }

    fn remember(&mut self, key: (usize, u64), address: u64, frame_size: u64) {
        if self.places.len() < REMEMBERED_MAX {
            self.places.entry(key).or_insert(BlockPlace { address, frame_size });
        }
    }
}

impl Row {
    /// Where its frames lie in their file.
    fn within(&self, batch: &Batch) -> std::ops::Range<u64> {
        batch.first + self.start as u64..batch.first + self.end as u64
    }
}

/// A count that is bounded by the bytes of a batch.
fn in_memory(count: u64) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::Io {
        op: "copying a frame".to_owned(),
        source: std::io::ErrorKind::OutOfMemory.into(),
    })
}
