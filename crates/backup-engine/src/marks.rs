//! What the tools of device mapper say was written: trackers from their texts.
//!
//! Two texts are understood. `era_dump` tells for each block in which era it was written last, and
//! what was written in eras that were not put together with it yet; eras are counted up, never
//! down. (With `--logical`, version 0.9 of the tool takes the older of two such eras, so that is
//! not read; nor is the text of an active device, which lacks its current era.) `thin_delta` tells which blocks of a thin volume are not
//! those of a snapshot of it. Both are about the moment in which the tool ran: the source must be
//! at rest from then on until the backup is done, a snapshot best of all. Whoever gets that wrong
//! is caught as everybody who misses a change.
//!
//! A text is believed when all of it is there and every line of it is understood.

use std::io;

use aiv_volume_io::{ChangeTracker, Extent, ExtentSet, Job, ReadAt, TrackerFacts, Watch};

/// Bytes of a text: eras of 16 million blocks.
const LEN_MAX: u64 = 1 << 30;
/// Bytes of a line, far more than any has.
const LINE_MAX: usize = 4096;
/// Blocks of a device with eras: two bits for each.
const BLOCKS_MAX: u64 = 1 << 26;
/// Runs of marked bytes: 64 MiB of memory.
const RUNS_MAX: usize = 1 << 22;
const STRIDE: usize = 1 << 20;
/// Bytes that the numbers of device mapper count in.
const SECTOR: u64 = 512;

/// Why a text tells nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MarksError {
    /// It cannot be read.
    #[error("reading at byte {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// It is not what one of the tools prints, or not all of it.
    #[error("line {line}: {what}")]
    Text {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It is larger than it may be.
    #[error("it has {len} bytes or too many runs, at most {LEN_MAX} bytes are read")]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// The job was stopped.
    #[error(transparent)]
    Canceled(#[from] aiv_volume_io::Canceled),
}

/// What a text says was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    facts: TrackerFacts,
    watch: Watch,
    marked: ExtentSet,
    /// Bytes that the text is about; what is behind them counts as marked.
    len: u64,
}

impl ChangeTracker for Marks {
    fn facts(&self) -> &TrackerFacts {
        &self.facts
    }

    fn watch(&self) -> Watch {
        self.watch
    }

    fn changed(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let mut runs: Vec<Extent> = Vec::new();
        for run in self.marked.within(range) {
            if runs.len() == aiv_volume_io::CHANGED_RUNS_MAX {
                runs.push(Extent::between(run.start, range.end()));
                return Ok(runs);
            }
            runs.push(run);
        }
        let behind = Extent::between(range.start.max(self.len), range.end());
        if !behind.is_empty() {
            runs.push(behind);
        }
        Ok(runs)
    }
}

/// The trackers of a text: of eras the one that is `wanted` (`era:NUMBER`, what was written in
/// this era or later) and that of the current era; of a delta `thin:NUMBER`, by the snapshot on its
/// left side. A text is about one moment: the current era, and a snapshot compared with itself, only
/// [begin](Watch::Begins) there, all others [have ended](Watch::Ended).
///
/// # Errors
/// [`MarksError`].
pub fn marks(
    text: &dyn ReadAt,
    wanted: Option<&str>,
    job: Job<'_>,
) -> Result<Vec<Marks>, MarksError> {
    let since = wanted.and_then(|name| name.strip_prefix("era:")?.parse().ok());
    let mut reading = Reading { since, ..Reading::default() };
    let mut line = 0;
    for_each_line(text, job, &mut |bytes| {
        line += 1;
        let wrong = |what| MarksError::Text { line, what };
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return Ok(());
        }
        let element = Element::parse(bytes).ok_or_else(|| wrong("it is no element of XML"))?;
        reading.take(&element).map_err(wrong)?;
        match reading.delta.runs().len() > RUNS_MAX {
            true => Err(MarksError::TooLarge { len: text.len() }),
            false => Ok(()),
        }
    })?;
    reading.finish().map_err(|what| MarksError::Text { line, what })
}

fn for_each_line(
    text: &dyn ReadAt,
    job: Job<'_>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), MarksError>,
) -> Result<(), MarksError> {
    let len = text.len();
    if len > LEN_MAX {
        return Err(MarksError::TooLarge { len });
    }
    let mut rest: Vec<u8> = Vec::new();
    let mut bytes = vec![0; STRIDE];
    for offset in (0..len).step_by(STRIDE) {
        job.check()?;
        let count = usize::try_from(len - offset).unwrap_or(STRIDE).min(STRIDE);
        let failed = |source| MarksError::Io { offset, source };
        text.read_exact_at(&mut bytes[..count], offset).map_err(failed)?;
        rest.extend_from_slice(&bytes[..count]);
        let mut lines = rest.split(|&byte| byte == b'\n');
        // What follows the last end of a line goes on in the next stride.
        let begun = lines.next_back().unwrap_or_default().to_vec();
        lines.try_for_each(&mut *take)?;
        rest = begun;
        if rest.len() > LINE_MAX {
            return Err(MarksError::Text { line: 0, what: "a line is too long" });
        }
    }
    if rest.is_empty() { Ok(()) } else { take(&rest) }
}

/// `<name key="value" ...>`, `<name .../>` or `</name>`.
struct Element<'a> {
    name: &'a str,
    is_end: bool,
    attributes: &'a str,
}

impl<'a> Element<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let inside = std::str::from_utf8(line).ok()?.strip_prefix('<')?.strip_suffix('>')?;
        let inside = inside.strip_suffix('/').unwrap_or(inside).trim();
        // Of two elements in one line, one would be passed over.
        if inside.contains(['<', '>']) {
            return None;
        }
        let (is_end, inside) = match inside.strip_prefix('/') {
            Some(inside) => (true, inside),
            None => (false, inside),
        };
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        is_name.then_some(Self { name, is_end, attributes })
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        let mut words = self.attributes.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix("=\"")?.strip_suffix('"'))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }
}

/// Which text it is, and how much of it was read.
#[derive(Default)]
enum State {
    #[default]
    Begin,
    Superblock,
    /// What was written in this era.
    Writeset(u64),
    Eras,
    Delta,
    BehindDelta,
    BehindEras,
    End,
}

#[derive(Default)]
struct Reading {
    state: State,
    /// The era that is asked for.
    since: Option<u64>,
    /// Bytes of a block.
    block: u64,
    /// Of a text of eras.
    eras: Option<Eras>,
    /// Blocks in front of which everything is known.
    next: u64,
    delta: ExtentSet,
    /// The snapshots on the left and on the right side.
    left: u64,
    right: u64,
}

struct Eras {
    blocks: u64,
    current: u64,
    /// Eras whose blocks come apart from the others.
    apart: Vec<u64>,
    /// A bit for each block that was written in the era that is asked for, or later.
    since: Vec<u8>,
    /// The same for the current era.
    now: Vec<u8>,
}

impl Eras {
    fn new(blocks: u64, current: u64) -> Option<Self> {
        let len = usize::try_from(blocks.div_ceil(8)).ok().filter(|_| blocks <= BLOCKS_MAX)?;
        let (since, now) = (vec![0; len], vec![0; len]);
        Some(Self { blocks, current, apart: Vec::new(), since, now })
    }

    /// A block was written in an era.
    fn mark(&mut self, block: u64, era: u64, since: Option<u64>) {
        let set = |bits: &mut Vec<u8>| {
            let byte = usize::try_from(block / 8).ok().and_then(|at| bits.get_mut(at));
            byte.into_iter().for_each(|byte| *byte |= 1 << (block % 8));
        };
        if since.is_some_and(|since| era >= since) {
            set(&mut self.since);
        }
        if era == self.current {
            set(&mut self.now);
        }
    }
}

/// The bytes of blocks whose bits are set.
fn in_bytes(bits: &[u8], block: u64) -> Result<ExtentSet, &'static str> {
    let mut set = ExtentSet::new();
    let numbers = (0u64..).zip(bits).filter(|(_, bits)| **bits != 0);
    let set_in = |(n, bits): (u64, &u8)| {
        let bits = *bits;
        (0..8).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| n * 8 + bit)
    };
    for number in numbers.flat_map(set_in) {
        set.push(Extent::new(number * block, block));
        if set.runs().len() > RUNS_MAX {
            return Err("too many runs");
        }
    }
    Ok(set)
}

type Taken = Result<(), &'static str>;

impl Reading {
    fn take(&mut self, element: &Element<'_>) -> Taken {
        match (&self.state, element.name, element.is_end) {
            (State::Begin, "superblock", false) => self.superblock(element),
            (State::Superblock, "writeset", false) => self.writeset(element),
            (&State::Writeset(era), "bit", false) => self.bit(element, era),
            (State::Writeset(_), "writeset", true) => {
                self.check_all()?;
                self.state = State::Superblock;
                Ok(())
            }
            (State::Superblock, "era_array", false) => match &self.eras {
                // While a device is active, what was written in its current era is not in the
                // tree that the tool prints: only a suspend puts it there.
                Some(eras) if !eras.apart.contains(&eras.current) => Err(
                    "the current era is missing: it is made by `era_dump` without --logical, of a \
                     device that was suspended or closed meanwhile",
                ),
                Some(_) => {
                    self.next = 0;
                    self.state = State::Eras;
                    Ok(())
                }
                None => Err("eras of a device that has none"),
            },
            (State::Superblock, "diff", false) if self.eras.is_none() => {
                self.left = element.number("left").ok_or("a delta without its left side")?;
                self.right = element.number("right").ok_or("a delta without its right side")?;
                self.state = State::Delta;
                Ok(())
            }
            (State::Eras, "era", false) => self.era(element),
            (State::Eras, "era_array", true) => {
                self.check_all()?;
                self.state = State::BehindEras;
                Ok(())
            }
            (State::Delta, "same" | "different" | "left_only" | "right_only", false) => {
                self.stretch(element)
            }
            (State::Delta, "diff", true) => {
                self.state = State::BehindDelta;
                Ok(())
            }
            (State::BehindEras | State::BehindDelta, "superblock", true) => {
                self.state = State::End;
                Ok(())
            }
            _ => Err("it is not what era_dump or thin_delta print there"),
        }
    }

    fn superblock(&mut self, element: &Element<'_>) -> Taken {
        let size = element.number("data_block_size").or_else(|| element.number("block_size"));
        let block = size.and_then(|sectors| sectors.checked_mul(SECTOR));
        self.block = block
            .filter(|block| (SECTOR..=1 << 40).contains(block))
            .ok_or("no size of a block, or one that none has")?;
        self.eras = match (element.number("nr_blocks"), element.number("current_era")) {
            (Some(blocks), Some(current)) => {
                blocks.checked_mul(self.block).ok_or("a device longer than any is")?;
                Some(Eras::new(blocks, current).ok_or("more blocks than are read")?)
            }
            _ => None,
        };
        self.state = State::Superblock;
        Ok(())
    }

    fn era(&mut self, element: &Element<'_>) -> Taken {
        let Some(eras) = &mut self.eras else { return Err("an era in no text of eras") };
        let (block, era) = (element.number("block"), element.number("era"));
        let (Some(block), Some(era)) = (block, era) else {
            return Err("an era without its numbers");
        };
        if block != self.next || block >= eras.blocks || era > eras.current {
            return Err("an era out of order, or of a time to come");
        }
        self.next += 1;
        eras.mark(block, era, self.since);
        Ok(())
    }

    fn writeset(&mut self, element: &Element<'_>) -> Taken {
        let Some(eras) = &mut self.eras else { return Err("eras of a device that has none") };
        let era = element.number("era").filter(|era| *era <= eras.current);
        let era = era.ok_or("an era of a time to come, or none")?;
        if element.number("nr_bits") != Some(eras.blocks) || eras.apart.contains(&era) {
            return Err("blocks of an era twice, or of a device of another length");
        }
        eras.apart.push(era);
        self.next = 0;
        self.state = State::Writeset(era);
        Ok(())
    }

    fn bit(&mut self, element: &Element<'_>, era: u64) -> Taken {
        let Some(eras) = &mut self.eras else { return Err("a bit in no text of eras") };
        let is_next = element.number("block") == Some(self.next) && self.next < eras.blocks;
        match element.text("value").filter(|_| is_next) {
            Some("true") => eras.mark(self.next, era, self.since),
            Some("false") => {}
            _ => return Err("a bit out of order, or without its value"),
        }
        self.next += 1;
        Ok(())
    }

    /// Whether every block was told of.
    fn check_all(&self) -> Taken {
        match self.eras.as_ref().is_none_or(|eras| eras.blocks == self.next) {
            true => Ok(()),
            false => Err("some blocks are missing"),
        }
    }

    fn stretch(&mut self, element: &Element<'_>) -> Taken {
        let (begin, len) = (element.number("begin"), element.number("length"));
        let (Some(begin), Some(len)) = (begin, len) else {
            return Err("no place: it is made by thin_delta without --verbose");
        };
        let end = begin.checked_add(len).filter(|&end| end > begin);
        let bytes = end.and_then(|end| end.checked_mul(self.block));
        let (Some(end), Some(bytes)) = (end, bytes) else { return Err("a length out of range") };
        if begin < self.next {
            return Err("places out of order");
        }
        self.next = end;
        if element.name != "same" {
            self.delta.push(Extent::between(begin * self.block, bytes));
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Marks>, &'static str> {
        if !matches!(self.state, State::End) {
            return Err("the text breaks off");
        }
        let granularity = self.block;
        let made = |kind, name: String, watch, marked, len| {
            let (beneath, unsound) = ([0; 32], None);
            let facts = TrackerFacts { kind, name, granularity, beneath, unsound };
            Marks { facts, watch, marked, len }
        };
        let Some(eras) = self.eras else {
            // Nothing is said of what neither of both has.
            let name = format!("thin:{}", self.left);
            // Of a snapshot and itself nothing is told but that it is there.
            let watch = if self.left == self.right { Watch::Begins } else { Watch::Ended };
            return Ok(vec![made("dm-thin", name, watch, self.delta, u64::MAX)]);
        };
        let len = eras.blocks * self.block;
        let now = in_bytes(&eras.now, self.block)?;
        let mut all =
            vec![made("dm-era", format!("era:{}", eras.current), Watch::Begins, now, len)];
        if let Some(since) = self.since.filter(|&since| since < eras.current) {
            let marked = in_bytes(&eras.since, self.block)?;
            all.push(made("dm-era", format!("era:{since}"), Watch::Ended, marked, len));
        }
        Ok(all)
    }
}
