//! Which partitions grow on a larger target, and up to where.

use std::str::FromStr;

use aiv_volume_io::partition::{Draft, Partition, PartitionKind, Unfit};

use crate::report::Note;

/// Partitions end at multiples of this, as all tools make them.
const ALIGNMENT: u64 = 1 << 20;

/// Which partitions grow into the free space behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grow {
    /// None.
    #[default]
    None,
    /// The one that ends last, unless it is of a kind that is never scaled: EFI system, BIOS
    /// boot, Microsoft reserved and Windows recovery partitions, and swap space.
    Last,
    /// These, whatever they are.
    Numbers(Numbers),
}

/// Numbers of partitions from 1 to 128, as many as a usual GPT has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers(u128);

impl Numbers {
    /// The numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (1..=128).filter(move |number| self.0 & (1 << (number - 1)) != 0)
    }
}

impl FromStr for Grow {
    type Err = &'static str;

    /// `none`, `last`, or numbers with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => return Ok(Self::None),
            "last" => return Ok(Self::Last),
            _ => {}
        }
        let mut numbers = 0;
        for word in text.split(',') {
            let number = word.parse::<u32>().ok().filter(|number| (1..=128).contains(number));
            let number = number.ok_or("not one of none, last, or partition numbers like 2,5")?;
            numbers |= 1 << (number - 1);
        }
        Ok(Self::Numbers(Numbers(numbers)))
    }
}

/// Why a partition that ends last is not scaled.
fn unscaled(partition: &Partition) -> Option<&'static str> {
    let kind = partition.kind.to_string();
    match (partition.kind, kind.as_str()) {
        (PartitionKind::Mbr(0xEF), _) | (_, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b") => {
            Some("an EFI system partition")
        }
        (_, "21686148-6449-6e6f-744e-656564454649") => Some("a BIOS boot partition"),
        (_, "e3c9e316-0b5c-4db8-817d-f92df00215ae") => Some("a Microsoft reserved partition"),
        (PartitionKind::Mbr(0x27), _) | (_, "de94bba4-06d1-4d40-a16a-bfd50179d6ac") => {
            Some("a Windows recovery partition")
        }
        (PartitionKind::Mbr(0x82), _) | (_, "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f") => {
            Some("swap space")
        }
        (kind, _) if kind.is_extended() => Some("an extended partition"),
        _ => None,
    }
}

/// Moves ends in the draft as the rule says. What has no room to grow stays, and is told.
pub(crate) fn grow(draft: &mut Draft, rule: Grow, notes: &mut Vec<Note>) -> Result<(), Unfit> {
    let numbers: Vec<u32> = match rule {
        Grow::None => return Ok(()),
        Grow::Numbers(numbers) => numbers.iter().collect(),
        Grow::Last => {
            let Some(last) = draft.partitions().iter().max_by_key(|p| p.extent.end()) else {
                return Ok(());
            };
            if let Some(what) = unscaled(last) {
                notes.push(Note::NotScaled { number: last.number, what });
                return Ok(());
            }
            vec![last.number]
        }
    };
    for number in numbers {
        let room = draft.room(number)?;
        let end = room - room % ALIGNMENT;
        let now = draft.partitions().iter().find(|p| p.number == number);
        let now = now.ok_or(Unfit::NoSuchPartition { number })?.extent.end();
        if end > now {
            draft.set_end(number, end)?;
        } else {
            notes.push(Note::NoRoomToGrow { number });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_word_or_numbers() {
        assert_eq!("none".parse(), Ok(Grow::None));
        assert_eq!("last".parse(), Ok(Grow::Last));
        let Ok(Grow::Numbers(numbers)) = "5,2,128,2".parse() else { panic!("numbers") };
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [2, 5, 128]);
        for text in ["", "0", "129", "2,", "first", "-1", "1;2"] {
            assert!(text.parse::<Grow>().is_err(), "{text:?}");
        }
    }
}
