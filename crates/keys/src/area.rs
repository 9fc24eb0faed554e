//! The key-slot area: all ways to the chain key, and what may be done with them.

use crate::error::Fault;
use crate::layout::{KeyAreaHead, KeySlot};
use crate::{
    ChainKey, Credential, Error, KEY_SIZE, NewSlot, PaperKey, Purpose, Result, Slot, SlotKind, Work,
};

const MAGIC: [u8; 8] = *b"AIVKEYS1";
const AREA_HASH: &[u8; KEY_SIZE] = b"aivory draft: key-slot area     ";
/// Bit of the flags: no new image gets this chain key.
const RETIRED: u32 = 1;
const HASH_AT: usize = 992;
const MAC_AT: usize = 64;

/// One copy of a key-slot area: parsed, sound by its hash, and never without a slot.
///
/// Whether the slots are those that the owners of the chain made is proven by the chain key
/// alone ([`KeyArea::prove`]); until then, everything in it may be an attacker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArea {
    generation: u64,
    commitment: [u8; KEY_SIZE],
    mac: [u8; KEY_SIZE],
    retired: bool,
    slots: [Option<Slot>; Self::SLOTS],
}

/// What opening an area gave.
#[derive(Debug)]
pub struct Opened {
    /// The chain key: it fits the commitment, and proved the area.
    pub key: ChainKey,
    /// The slot that was opened, from 1, and the copy it stands in. A paper key is the chain key,
    /// and no slot was opened.
    pub through: Option<(u8, KeyArea)>,
}

impl Opened {
    /// What a paper key gives for the chain that this commitment stands for.
    ///
    /// # Errors
    /// [`Error::OtherChain`].
    pub fn by_paper(paper: &PaperKey, commitment: &[u8; KEY_SIZE]) -> Result<Self> {
        // Commitments are public.
        if paper.key().commitment() != *commitment {
            return Err(Error::OtherChain);
        }
        Ok(Self { key: paper.key().clone(), through: None })
    }
}

impl KeyArea {
    /// Bytes of a copy.
    pub const SIZE: usize = KeyAreaHead::SIZE + Self::SLOTS * KeySlot::SIZE;
    /// Slots of an area, numbered from 1.
    pub const SLOTS: usize = 31;
    /// The generation nobody gets to: a change every second for 136 years.
    pub const GENERATION_MAX: u64 = u32::MAX as u64;

    /// Changes there is room for behind an area that was made anew, whatever the clock said.
    const CHANGES_ANEW: u64 = 1 << 24;

    /// An area with one slot, of generation 1.
    ///
    /// # Errors
    /// [`Error::Unusable`] for what no slot can be made of; [`Error::NoMemory`].
    pub fn new(key: &ChainKey, first: &NewSlot<'_>) -> Result<Self> {
        let mut slots = [const { None }; Self::SLOTS];
        slots[0] = Some(Slot::make(key, first)?);
        Self::made(key, 1, false, slots)
    }

    /// An area for images that have none any more: with one slot, and retired, since nobody knows
    /// whether the one that is lost was. Its generation is the second it is made in, above any
    /// that was counted: older images of the chain that turn up do not bring theirs back.
    ///
    /// # Errors
    /// Those of [`KeyArea::new`].
    pub fn anew(key: &ChainKey, first: &NewSlot<'_>) -> Result<Self> {
        let mut slots = [const { None }; Self::SLOTS];
        slots[0] = Some(Slot::make(key, first)?);
        let latest = Self::GENERATION_MAX - Self::CHANGES_ANEW;
        let generation = (first.created_unix_ms / 1000).clamp(1, latest);
        Self::made(key, generation, true, slots)
    }

    /// Parses one copy of [`KeyArea::SIZE`] bytes, every byte of which is checked.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fail = |fault: Fault| Err(fault.into());
        if bytes.len() != Self::SIZE {
            return fail(Fault::Length { found: bytes.len() });
        }
        let (head, body) = bytes.split_at(KeyAreaHead::SIZE);
        let head: &[u8; KeyAreaHead::SIZE] = head.first_chunk().expect("split at this length");
        let raw = KeyAreaHead::decode(head);
        if raw.magic != MAGIC {
            return fail(Fault::Magic);
        }
        if raw.hash != hash(head, body) {
            return fail(Fault::Hash);
        }
        if !KeyAreaHead::reserved_is_zero(head) {
            return fail(Fault::ReservedHead);
        }
        if !(1..=Self::GENERATION_MAX).contains(&raw.generation) {
            return fail(Fault::Generation(raw.generation));
        }
        let mut slots = [const { None }; Self::SLOTS];
        for ((number, slot), bytes) in (1..).zip(&mut slots).zip(body.as_chunks().0) {
            *slot = Slot::decode(bytes, number)?;
        }
        let found = slots.iter().flatten().count();
        if u32::try_from(found) != Ok(raw.count) {
            return fail(Fault::Count { said: raw.count, found });
        }
        if found == 0 {
            return fail(Fault::NoSlot);
        }
        if raw.flags & !RETIRED != 0 {
            return fail(Fault::Flags(raw.flags));
        }
        let (generation, commitment, mac) = (raw.generation, raw.key_commitment, raw.mac);
        Ok(Self { generation, commitment, mac, retired: raw.flags == RETIRED, slots })
    }

    /// The sound ones of the copies of an area, the newest first, each once.
    ///
    /// # Errors
    /// [`Error::Damaged`] of the first copy when none is sound.
    pub fn sound(copies: [&[u8]; 2]) -> Result<Vec<Self>> {
        let parsed = copies.map(Self::parse);
        let mut sound: Vec<Self> = parsed.iter().flatten().cloned().collect();
        sound.sort_by_key(|area| std::cmp::Reverse(area.generation));
        sound.dedup();
        if let (true, [first, _]) = (sound.is_empty(), parsed) {
            first?;
        }
        Ok(sound)
    }

    /// The bytes of a copy.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        let mut head = self.head();
        bytes.extend_from_slice(&head.encode());
        for slot in &self.slots {
            bytes.extend_from_slice(&slot.as_ref().map_or([0; KeySlot::SIZE], Slot::encode));
        }
        head.hash = hash(&head.encode(), &bytes[KeyAreaHead::SIZE..]);
        bytes[..KeyAreaHead::SIZE].copy_from_slice(&head.encode());
        bytes
    }

    /// How often the slots were changed, plus one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What stands for the chain key in the superblock, too.
    #[must_use]
    pub fn commitment(&self) -> &[u8; KEY_SIZE] {
        &self.commitment
    }

    /// All slots that are not empty, with their numbers.
    pub fn slots(&self) -> impl Iterator<Item = (u8, &Slot)> {
        (1..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// Tries what somebody has on every slot of its kind.
    ///
    /// # Errors
    /// [`Error::WrongKey`]; [`Error::OtherChain`] for a paper key; [`Error::Forged`] when it opens a
    /// slot of an area that somebody without the chain key changed; [`Error::TooMuchWork`] and
    /// [`Error::NoMemory`].
    pub fn open(&self, credential: &Credential, work: &mut Work) -> Result<Opened> {
        let kind = match credential.slot_kind() {
            Ok(kind) => kind,
            Err(paper) => return Opened::by_paper(paper, &self.commitment),
        };
        let mut slots = 0;
        for (number, slot) in self.slots().filter(|(_, slot)| slot.kind() == kind) {
            slots += 1;
            if let Some(key) = slot.open(credential, &self.commitment, number, work)? {
                self.prove(&key)?;
                return Ok(Opened { key, through: Some((number, self.clone())) });
            }
        }
        Err(Error::WrongKey { kind, slots })
    }

    /// As [`KeyArea::open`], on the first of several copies that it works on.
    ///
    /// # Errors
    /// That of the first copy; [`Error::Damaged`] when there are none.
    pub fn open_any(areas: &[Self], credential: &Credential, work: &mut Work) -> Result<Opened> {
        let mut failed = None;
        for area in areas {
            match area.open(credential, work) {
                Ok(opened) => return Ok(opened),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Fault::NoSlot.into()))
    }

    /// Proves that somebody with the chain key made this area as it is.
    ///
    /// # Errors
    /// [`Error::Forged`].
    pub fn prove(&self, key: &ChainKey) -> Result<()> {
        // Hashes of BLAKE3 are compared in constant time.
        let expected = blake3::Hash::from_bytes(self.mac_by(key));
        let is_ours = key.commitment() == self.commitment;
        if is_ours && expected == blake3::Hash::from_bytes(self.mac) {
            Ok(())
        } else {
            Err(Error::Forged)
        }
    }

    /// One more slot, and its number.
    ///
    /// # Errors
    /// [`Error::Full`]; those of [`KeyArea::new`] and [`KeyArea::prove`].
    pub fn add(&self, key: &ChainKey, new: &NewSlot<'_>) -> Result<(Self, u8)> {
        self.prove(key)?;
        let free = (1..).zip(&self.slots).find(|(_, slot)| slot.is_none());
        let (number, _) = free.ok_or(Error::Full("all 31 are taken"))?;
        Ok((self.with(key, number, Some(Slot::make(key, new)?))?, number))
    }

    /// One slot less.
    ///
    /// # Errors
    /// [`Error::LastSlot`], [`Error::NoSlot`]; those of [`KeyArea::prove`].
    pub fn remove(&self, key: &ChainKey, number: u8) -> Result<Self> {
        self.prove(key)?;
        self.slot(number)?;
        if self.slots().count() == 1 {
            return Err(Error::LastSlot(number));
        }
        self.with(key, number, None)
    }

    /// Another slot in the place of this one.
    ///
    /// # Errors
    /// [`Error::NoSlot`]; those of [`KeyArea::new`] and [`KeyArea::prove`].
    pub fn change(&self, key: &ChainKey, number: u8, new: &NewSlot<'_>) -> Result<Self> {
        self.prove(key)?;
        self.slot(number)?;
        self.with(key, number, Some(Slot::make(key, new)?))
    }

    /// A slot by its number.
    ///
    /// # Errors
    /// [`Error::NoSlot`].
    pub fn slot(&self, number: u8) -> Result<&Slot> {
        let found = self.slots().find(|(other, _)| *other == number);
        Ok(found.ok_or(Error::NoSlot(number))?.1)
    }

    /// The same slots with the mark that no new image gets this chain key: the next one of the
    /// source is full, and has a key of its own.
    ///
    /// # Errors
    /// Those of [`KeyArea::prove`].
    pub fn retire(&self, key: &ChainKey) -> Result<Self> {
        self.prove(key)?;
        Self::made(key, self.generation.saturating_add(1), true, self.slots.clone())
    }

    /// Whether no new image gets this chain key.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    fn with(&self, key: &ChainKey, number: u8, slot: Option<Slot>) -> Result<Self> {
        let mut slots = self.slots.clone();
        let at = usize::from(number).checked_sub(1).and_then(|at| slots.get_mut(at));
        *at.ok_or(Error::NoSlot(number))? = slot;
        Self::made(key, self.generation.saturating_add(1), self.retired, slots)
    }

    fn made(
        key: &ChainKey,
        generation: u64,
        retired: bool,
        slots: [Option<Slot>; Self::SLOTS],
    ) -> Result<Self> {
        if generation > Self::GENERATION_MAX {
            return Err(Error::Full("it was changed too often"));
        }
        let costs = slots.iter().flatten().filter_map(Slot::cost);
        if costs.map(crate::Cost::kib_passes).sum::<u64>() > Work::MAX_KIB_PASSES {
            let passphrases = "a wrong passphrase would have to be tried on too many";
            return Err(Error::Full(passphrases));
        }
        let (commitment, mac) = (key.commitment(), [0; KEY_SIZE]);
        let mut area = Self { generation, commitment, mac, retired, slots };
        area.mac = area.mac_by(key);
        Ok(area)
    }

    fn head(&self) -> KeyAreaHead {
        KeyAreaHead {
            magic: MAGIC,
            generation: self.generation,
            key_commitment: self.commitment,
            count: u32::try_from(self.slots().count()).unwrap_or(u32::MAX),
            flags: if self.retired { RETIRED } else { 0 },
            mac: self.mac,
            hash: [0; KEY_SIZE],
        }
    }

    fn mac_by(&self, key: &ChainKey) -> [u8; KEY_SIZE] {
        let bytes = self.to_bytes();
        let before = &bytes[..MAC_AT];
        let between = &bytes[MAC_AT + KEY_SIZE..HASH_AT];
        let behind = &bytes[HASH_AT + KEY_SIZE..];
        *key.derive(Purpose::SlotAreaMac, &[before, between, behind]).expose()
    }

    /// How many slots there are of a kind.
    #[must_use]
    pub fn count(&self, kind: SlotKind) -> usize {
        self.slots().filter(|(_, slot)| slot.kind() == kind).count()
    }
}

fn hash(head: &[u8; KeyAreaHead::SIZE], slots: &[u8]) -> [u8; KEY_SIZE] {
    let mut hasher = blake3::Hasher::new_keyed(AREA_HASH);
    hasher.update(&head[..HASH_AT]).update(slots);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cost, Passphrase, Way};

    #[test]
    fn what_one_attempt_costs_is_bounded_over_all_slots() {
        let key = ChainKey::new([1; KEY_SIZE]);
        let passphrase = Passphrase::new("right").unwrap();
        let way = Way::Passphrase(&passphrase, Cost::new(8, 2, 1).unwrap());
        let new = NewSlot { way, label: "", created_unix_ms: 0, random: &[3; NewSlot::RANDOM] };
        let mut area = KeyArea::new(&key, &new).unwrap();
        area = area.add(&key, &new).unwrap().0;
        area = area.add(&key, &new).unwrap().0;
        let wrong = Credential::Passphrase(Passphrase::new("wrong").unwrap());
        let mut work = Work::of(40);
        let error = area.open(&wrong, &mut work).unwrap_err();
        let asked = Cost::new(8, 2, 1).unwrap();
        assert_eq!(error, Error::TooMuchWork { slot: 3, asked, left: 8 });
        assert!(
            area.open(&wrong, &mut Work::of(48))
                .is_err_and(|e| e == Error::WrongKey { kind: SlotKind::Passphrase, slots: 3 })
        );
        assert_eq!(Work::new().left(), Work::MAX_KIB_PASSES);
    }
}
