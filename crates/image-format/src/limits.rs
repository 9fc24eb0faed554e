//! Every maximum of the format, each with its reason. `docs/format.md` section 10 lists the
//! same numbers; a reader refuses anything beyond them before it allocates.

/// Smallest block: below it the 48 bytes of index and 64 of frame header per block weigh more
/// than one percent.
pub const BLOCK_SIZE_MIN: u32 = 16 << 10;

/// Largest block: a random 4 KiB read decodes a whole one, and a reader holds a few of them.
pub const BLOCK_SIZE_MAX: u32 = 4 << 20;

/// Bytes one frame may store. The largest block with room to spare, and a bound on what a
/// reader allocates for a hostile header.
pub const STORED_LEN_MAX: u32 = 16 << 20;

/// Bytes one META section may hold after decompression.
pub const META_SECTION_MAX: u32 = 16 << 20;

/// META sections in one image.
pub const META_SECTIONS_MAX: usize = 256;

/// Bytes of all META frames of one image together, so that opening a hostile image stays
/// cheap: partition tables of 1,024 partitions with long names need less than one MiB.
pub const META_TOTAL_MAX: u64 = 32 << 20;

/// Items in one META section or group: above what 16 MiB of source errors can be, and a bound
/// on the memory a section full of empty items takes.
pub const META_ITEMS_MAX: usize = 1 << 20;

/// Depth of nested META items: section, region, volume, and room for one more thought.
pub const META_DEPTH_MAX: u32 = 8;

/// Block numbers are 40 bits in the index.
pub const BLOCKS_MAX: u64 = 1 << 40;

/// Blocks one index entry may cover (20 bits, zero not used).
pub const RUN_MAX: u64 = (1 << 20) - 1;

/// Addresses are 48 bits in units of 64 bytes: 16 PiB of image.
pub const ADDRESS_UNITS_MAX: u64 = 1 << 48;

/// Index entries between two checkpoints, so that a checkpoint stays below
/// [`STORED_LEN_MAX`] and resuming never loses more than this many decisions.
pub const CHECKPOINT_ENTRIES_MAX: usize = 1 << 16;

/// Pieces one checkpoint may list: those of 16 GiB, far above what [`CHECKPOINT_BYTES`] allows.
pub const CHECKPOINT_PIECES_MAX: u32 = 1 << 18;

/// Levels of the index: 84^8 leaf pages exceed every file the format can express.
pub const INDEX_LEVELS_MAX: usize = 8;

/// Stored bytes between two checkpoints.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Writing sessions one image may name (one, unless a backup was resumed or images merged).
pub const ORIGINS_MAX: usize = 16_384;

/// Partitions one disk may have in META. GPT tables in the field hold 128, some tools make 1,024.
pub const PARTITIONS_MAX: usize = 1_024;

/// Regions one disk may have in META: its partitions, the gap before each, and a table for
/// each logical one, with room to spare.
pub const REGIONS_MAX: usize = 8_192;

/// Facts about the machine, and sentences about its partition table, in META. A thorough
/// inventory has hundreds; each costs a reader several times its bytes in memory.
pub const FACTS_MAX: usize = 65_536;

/// Excluded files one image may list, and patterns: a list for people, which nothing depends on.
pub const EXCLUDED_FILES_MAX: usize = 65_536;

/// Bytes of META a writer spends on its list of excluded files, so that the other sections keep
/// their room.
pub const EXCLUDED_BYTES: usize = 4 << 20;

/// Change trackers one point may list. A backup needs the one it uses and the next one.
pub const TRACKERS_MAX: usize = 64;

/// Marked places of a tracker that a point remembers, to see whether they stay marked.
pub const WITNESSES_MAX: usize = 64;

/// Differences a reader undoes for one block before it meets one stored whole, and the largest
/// depth a frame may state: bounds the recursion of a reader and its memory. Writers stay at two,
/// so that a random read costs at most two decompressions more than in a full image.
pub const DELTA_DEPTH_MAX: u8 = 8;

/// Blocks of the same image one block may be a difference to: with the largest blocks their bytes
/// fill a zstd window. All of them are read for one block.
pub const LOCAL_BASES_MAX: usize = 2;

/// Frame payloads are padded to this; addresses count in it.
pub const FRAME_ALIGN: u64 = 64;

/// Size of superblock, trailer and pages, and alignment of sections.
pub const PAGE_SIZE: usize = 4096;

/// Bytes of the file that one hash of the stored list covers.
pub const PIECE_SIZE: usize = 64 << 10;

/// Zero bytes between the two trailers, so that no burst of 64 KiB can hit both.
pub const TRAILER_GAP: u64 = 64 << 10;

/// Zero bytes between the two trailers of an image with parity over its pieces, which repairs
/// bursts of 192 KiB: none of them hits both.
pub const TRAILER_GAP_WITH_PARITY: u64 = 256 << 10;

/// Bytes behind a stripe of pieces within which its PARITY frame begins: bounds how far a reader
/// looks for it. A merge copies rows of frames of up to half as much.
pub const PARITY_REACH: u64 = 32 << 20;

/// Segments of one image: all of them stay open while it is read, and their names have three
/// digits.
pub const SEGMENTS_MAX: u32 = 1_000;

/// Smallest size of a segment file that can be asked for: one piece of the image, with the 84 KiB
/// of superblock, list and tail around it.
pub const SEGMENT_BYTES_MIN: u64 = 160 << 10;

/// Bytes of one copy of the key-slot area: a head and 31 slots of 1 KiB each. Two copies lie as
/// far apart as superblock and trailers do.
pub const SLOT_AREA_LEN: u64 = 32 << 10;
