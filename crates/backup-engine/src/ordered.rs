//! Hands what the workers made to the image writer, in the order of the disk.

use aiv_image_format::{ImageWriter, RunKind};
use crossbeam_channel::Receiver;

use crate::pipeline::Item;
use crate::workshop::{Block, Workshop};

pub(crate) fn write_in_order(
    items: &Receiver<Item>,
    writer: &mut ImageWriter<'_>,
    workshop: &Workshop,
) -> aiv_image_format::Result<()> {
    let _ended = workshop.reached.guard();
    workshop.reached.set(writer.next_block());
    for item in items {
        match item {
            Item::Run(kind, count) => writer.push_run(kind, count)?,
            Item::Inherited(count) => writer.inherit(count)?,
            // The sender is only dropped unsent when its worker panicked; the scope reports that.
            Item::Batch(outcome) => match outcome.recv() {
                Ok(blocks) => write_blocks(blocks?, writer, workshop)?,
                Err(_) => return Ok(()),
            },
        }
        workshop.reached.set(writer.next_block());
    }
    Ok(())
}

fn write_blocks(
    blocks: Vec<Block>,
    writer: &mut ImageWriter<'_>,
    workshop: &Workshop,
) -> aiv_image_format::Result<()> {
    for block in blocks {
        match block {
            Block::Inherited(count) => writer.inherit(count)?,
            Block::Moved(from, leaf) => writer.push_parent(from, leaf)?,
            Block::Unused => writer.push_run(RunKind::Unused, 1)?,
            Block::Excluded => writer.push_run(RunKind::Excluded, 1)?,
            Block::Zero => writer.push_run(RunKind::Zero, 1)?,
            Block::Lost => writer.push_run(RunKind::Unreadable, 1)?,
            Block::Damaged(block) => {
                writer.push_damaged_block(&block)?;
            }
            Block::Seen(leaf) => {
                let place = workshop.seen.find(&leaf);
                let place = place.expect("the table forgets nothing a worker found in it");
                writer.push_ref(place, leaf)?;
            }
            Block::New(block, pages) => match workshop.seen.find(&block.leaf) {
                Some(place) => writer.push_ref(place, block.leaf)?,
                None => {
                    let number = writer.next_block();
                    let place = writer.push_block(&block)?;
                    // Nothing refers to a difference: it needs more than itself.
                    if block.is_whole() && workshop.seen.remember(block.leaf, place, number) {
                        workshop.pages.remember(number, &pages);
                    }
                }
            },
        }
    }
    Ok(())
}
