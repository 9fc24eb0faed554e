//! META items: tag, flags, length, value. Lists repeat a tag; groups nest.

use crate::error::Fault;
use crate::limits::{META_DEPTH_MAX, META_ITEMS_MAX};

type Checked<T> = std::result::Result<T, Fault>;

const HEADER: usize = 8;

/// A reader that does not know the tag may skip the item.
const OPTIONAL: u16 = 1;

/// Writes items one after the other.
#[derive(Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        self.item(tag, 0, value)
    }

    pub(super) fn number(&mut self, tag: u16, value: u64) -> &mut Self {
        self.item(tag, 0, &value.to_le_bytes())
    }

    /// Writes text; an empty one is left out, as absence reads as empty.
    pub(super) fn text(&mut self, tag: u16, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.optional(tag, value.as_bytes()) }
    }

    /// Writes an item that a reader may skip, an empty one too.
    pub(super) fn optional(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        self.item(tag, OPTIONAL, value)
    }

    pub(super) fn group(&mut self, tag: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.item(tag, 0, &inner.out)
    }

    fn item(&mut self, tag: u16, flags: u16, value: &[u8]) -> &mut Self {
        let len = u32::try_from(value.len()).expect("sections are far below 4 GiB");
        self.out.extend_from_slice(&tag.to_le_bytes());
        self.out.extend_from_slice(&flags.to_le_bytes());
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(value);
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// The items of one section or group, parsed one level deep.
pub(super) struct Items<'a> {
    items: Vec<(u16, &'a [u8])>,
    depth: u32,
}

impl<'a> Items<'a> {
    /// Splits `bytes` into items. Items whose tag is not in `known` are dropped when they are
    /// optional and refused when they are not.
    pub(super) fn parse(bytes: &'a [u8], known: &[u16]) -> Checked<Self> {
        Self::parse_at(bytes, known, 0)
    }

    fn parse_at(mut bytes: &'a [u8], known: &[u16], depth: u32) -> Checked<Self> {
        if depth > META_DEPTH_MAX {
            return Err(Fault::Value {
                field: "nesting",
                found: depth.into(),
                allowed: "at most 8",
            });
        }
        let mut items = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Fault::CutOff)?;
            let [t0, t1, f0, f1, l0, l1, l2, l3] = *head;
            let (tag, flags) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([f0, f1]));
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let (value, rest) = rest.split_at_checked(len).ok_or(Fault::CutOff)?;
            if flags & !OPTIONAL != 0 {
                let allowed = "0 or 1 (optional)";
                return Err(Fault::Value { field: "item flags", found: flags.into(), allowed });
            }
            if items.len() == META_ITEMS_MAX {
                let (field, found) = ("item count", META_ITEMS_MAX as u64 + 1);
                return Err(Fault::Value { field, found, allowed: "at most 2^20" });
            }
            if known.contains(&tag) {
                items.push((tag, value));
            } else if flags & OPTIONAL == 0 {
                return Err(Fault::Item { tag });
            }
            bytes = rest;
        }
        Ok(Self { items, depth })
    }

    /// Every value of `tag`, in order.
    pub(super) fn all(&self, tag: u16) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.items.iter().filter(move |(t, _)| *t == tag).map(|(_, value)| *value)
    }

    /// Refuses more than `max` items of `tag`, before anything is allocated for them.
    pub(super) fn at_most(
        &self,
        field: &'static str,
        tag: u16,
        max: usize,
        allowed: &'static str,
    ) -> Checked<()> {
        let found = self.all(tag).count() as u64;
        if found > max as u64 { Err(Fault::Value { field, found, allowed }) } else { Ok(()) }
    }

    /// The value of a tag that is no list. A second one is refused, so that no two readers can
    /// disagree about which of them counts.
    fn one(&self, tag: u16) -> Checked<Option<&'a [u8]>> {
        let mut values = self.all(tag);
        let first = values.next();
        if values.next().is_some() { Err(Fault::Repeated { tag }) } else { Ok(first) }
    }

    pub(super) fn bytes<const N: usize>(&self, tag: u16) -> Checked<[u8; N]> {
        let value = self.one(tag)?.ok_or(Fault::Missing { tag })?;
        <[u8; N]>::try_from(value).map_err(|_| Fault::CutOff)
    }

    pub(super) fn number(&self, tag: u16) -> Checked<u64> {
        self.bytes(tag).map(u64::from_le_bytes)
    }

    /// A number that must fit 32 bits.
    pub(super) fn small(&self, tag: u16) -> Checked<u32> {
        let found = self.number(tag)?;
        let allowed = "at most 2^32 - 1";
        u32::try_from(found).map_err(|_| Fault::Value { field: "item value", found, allowed })
    }

    pub(super) fn text(&self, tag: u16) -> Checked<String> {
        let value = self.one(tag)?.unwrap_or_default();
        std::str::from_utf8(value).map(str::to_owned).map_err(|_| Fault::Text)
    }

    /// The one group under `tag`, if there is one.
    pub(super) fn group(&self, tag: u16, known: &[u16]) -> Checked<Option<Items<'a>>> {
        let value = self.one(tag)?;
        value.map(|value| Items::parse_at(value, known, self.depth + 1)).transpose()
    }

    /// The groups under the list tag `tag`, each parsed with its own known tags.
    pub(super) fn groups<'s>(
        &'s self,
        tag: u16,
        known: &'s [u16],
    ) -> impl Iterator<Item = Checked<Items<'a>>> + 's {
        self.all(tag).map(move |value| Items::parse_at(value, known, self.depth + 1))
    }
}
