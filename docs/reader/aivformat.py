"""The records of the Aivory image format: bytes in, checked values out.

Written from docs/format.md alone. Numbers in brackets are its sections. Nothing here knows of files that belong
together; every function gets bytes (or a stream and a place) and raises `Damage` with what is wrong, and where.
"""

import os
import struct
from types import SimpleNamespace

import google_crc32c
import lz4.block
import zstandard
from blake3 import blake3

PAGE, PIECE = 4096, 65536
TAIL = 3 * PAGE + 65536  # trailer 1, gap, superblock copy, trailer 2; the gap is four times as wide with `parity`
TAIL_PARITY = 3 * PAGE + 4 * 65536
LAST_PARITY = 266240  # bytes of the PARITY frame that ends a frame area
FRAME_MAX = 16 << 20
WINDOW_MAX = 1 << 23
META_MAX = 32 << 20
DATA, DELTA, CHECKPOINT, META, PARITY, PAD = range(1, 7)  # types of frames
(K_DATA, K_DELTA, K_ZERO, K_UNUSED, K_EXCLUDED, K_UNREADABLE, K_REF, K_PARENT, K_STORE) = range(1, 10)
KIND_NAMES = "0 DATA DELTA ZERO UNUSED EXCLUDED UNREADABLE REF PARENT STORE".split()
CONDITION = {K_UNUSED: 1, K_EXCLUDED: 2, K_UNREADABLE: 3}  # 0 for all others
MAGIC = b"\x89AIV\r\n\x1a\n"
FILL = b"!AIV-UNREADABLE!"
SEALED, AUTHENTICATED, SPLIT, BIT_DELTA, BIT_PARENT, _, BIT_PARITY, KEY_SLOTS = (1 << bit for bit in range(8))
KNOWN_INCOMPAT = 0xDF
KEYS = {name: f"aivory draft: {words}".ljust(32).encode() for name, words in {
    "segment": "segment trailer", "slots": "key-slot area", "file": "content of keyfile", "code": "recovery code",
    "text": "text of a key",
    "leaf": "leaf of one block", "content": "content tree node", "map": "map tree node", "state": "state root",
    "piece": "stored piece", "stored": "stored tree node", "page": "index page", "section": "whole section",
    "trailer": "trailer", "set": "set of a source"}.items()}


class Problem(Exception):
    """What is wrong, and at which byte of the file."""

    def __init__(self, what, at=None):
        super().__init__(what if at is None else f"{what} (at 0x{at:x})")


class Damage(Problem):
    """The bytes contradict the format."""


class Refused(Problem):
    """Not damaged: no image, not finished, or of a version or with features this program does not know."""


def need(true, what, at=None):
    if not true:
        raise Damage(what, at)


def crc(salt, data):
    return google_crc32c.extend(google_crc32c.extend(0, salt), bytes(data))


def keyed_hash(purpose, data):
    return blake3(data, key=KEYS[purpose]).digest()


def le64(number):
    return number.to_bytes(8, "little")


def round_up(number, to):
    return -(-number // to) * to


def attempt(function, *arguments):
    """What a function gives, or the problem that it found."""
    try:
        return function(*arguments)
    except Problem as problem:
        return problem


class FileStream:
    """The bytes of one file."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.path, self.length = path, os.fstat(self.file.fileno()).st_size

    def __del__(self):
        if hasattr(self, "file"):
            self.file.close()

    def read(self, at, size):
        need(0 <= at and at + size <= self.length, f"{size} bytes lie behind the end of the file", at)
        try:
            self.file.seek(at)
            data = self.file.read(size)
        except OSError as error:
            raise Damage(f"cannot be read: {error}", at) from None
        need(len(data) == size, "the file became shorter while it was read", at)
        return data


# ---- records of fixed layout: one table each, in the order and with the names of the document

def layout(table):
    names, codes = zip(*(word.split(":") for word in table.split()))
    return names, struct.Struct("<" + "".join(codes))


SUPERBLOCK = layout("""magic:8s major:H minor:H _:4s incompat:Q ro_compat:Q compat:Q autoclear:Q image_uuid:16s
    set_uuid:16s recovery_point:16s parent_point:16s parent_state_root:32s kind:B block_log2:B align_log2:B
    sector_log2:B segment_no:I segment_count:I slot_area_len:I address_space_len:Q created_unix_ms:Q session_tag:12s
    _:4s writer:32s feature_names:1536s key_commitment:32s source_token:32s segment_start:Q
    _:2260s crc:I""")
TRAILER = layout("""magic:8s major:H minor:H copy:B _:3s image_uuid:16s set_uuid:16s recovery_point:16s
    parent_point:16s parent_state_root:32s content_root:32s map_root:32s state_root:32s stored_root:32s file_len:Q
    frames_end:Q index_offset:Q index_pages:Q index_leaf_pages:Q index_root:32s tree_offset:Q tree_pages:Q
    tree_hash:32s meta_offset:Q meta_len:Q meta_hash:32s stored_offset:Q stored_pieces:Q last_checkpoint:Q frames:Q
    blocks_data:Q blocks_zero:Q blocks_unused:Q blocks_excluded:Q blocks_unreadable:Q blocks_ref:Q payload_bytes:Q
    blocks_delta:Q blocks_parent:Q mac:32s session_tag:12s _:4s parity_offset:Q parity_len:Q parity_hash:32s
    segment_count:I _:3448s hash:32s crc:I""")
FRAME = layout("""magic:4s kind:B codec:B flags:B depth:B session_tag:12s nonce_salt:I seq:Q subject:Q plain_len:I
    stored_len:I payload_crc:I leaf_prefix:8s crc:I""")
PAGE_HEADER = layout("magic:4s kind:B level:B count:H page_no:Q first:Q image_uuid:16s tag:16s _:4s crc:I body:4032s")
INNER_HEAD = layout("subject:Q leaf_prefix:8s plain_len:I pad_len:I codec:B flags:B depth:B _:5s")
CHECKPOINT_HEAD = layout("""previous_address:Q number:Q next_block:Q first_piece:Q piece_count:I entry_count:I
    origin_count:I _:20s""")
DELTA_HEAD = layout("base_block:Q base_leaf:32s depth:B _:7s")


def unpack(record, data):
    """The values by name, and whether every reserved byte is zero as `clean`."""
    names, form = record
    values = form.unpack(data)
    out = SimpleNamespace(clean=not any(any(v) for n, v in zip(names, values) if n == "_"))
    out.__dict__.update((n, v) for n, v in zip(names, values) if n != "_")
    return out


def utf8(data, what, at):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Damage(f"{what} is not UTF-8", at) from None


def label(data, what, at):
    """A text of fixed length: padded with zeros, without control characters."""
    text = utf8(data.rstrip(b"\0"), what, at)
    need(not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text), f"{what} has a control character", at)
    return text


def differ(one, other, names):
    """Whether two records of one layout differ in other fields than these."""
    return {**vars(one), **dict.fromkeys(names.split())} != {**vars(other), **dict.fromkeys(names.split())}


def record(table, data, name, at, magic, salt, purpose=None):
    """The values of a record whose magic, checksum and, where it has one, hash are right."""
    r = unpack(table, data)
    need(r.magic == magic, f"{name}: no magic", at)
    need(r.crc == crc(salt, data[:60] + data[64:] if magic == b"AVP1" else data[:-4]), f"{name}: crc is wrong", at)
    need(not purpose or r.hash == keyed_hash(purpose, data[:4060]), f"{name}: hash is wrong", at)
    return r


def superblock(data, at):
    """A checked superblock [3], in the order of checks the document gives."""
    s = record(SUPERBLOCK, data, "superblock", at, MAGIC, b"aiv.supr")
    if (s.major, s.minor) != (0, 3):
        raise Refused(f"the image has format {s.major}.{s.minor}, this program reads 0.3", at)
    if s.incompat & ~KNOWN_INCOMPAT:
        rows = [s.feature_names[i:i + 48] for i in range(0, 1536, 48)]
        told = {r[1]: repr(r[4:].rstrip(b"\0").decode(errors="replace")) for r in rows if r[0] == 1}
        told |= {5: "dedup-store", 8: "overlay"}
        names = [told.get(b, f"bit {b}") for b in range(64) if (s.incompat & ~KNOWN_INCOMPAT) >> b & 1]
        raise Refused(f"the image needs features this program does not have: {', '.join(names)}", at)
    need(s.clean, "superblock: reserved bytes are not zero", at)
    s.writer, s.has_parent = label(s.writer, "superblock: writer", at), any(s.parent_point)
    need(any(s.image_uuid) and any(s.set_uuid) and any(s.recovery_point) and s.parent_point != s.recovery_point,
         "superblock: an id is zero, or the image is its own parent", at)
    need(1 <= s.kind <= 3 and (s.kind == 1) != s.has_parent and (s.has_parent or not any(s.parent_state_root))
         and (s.has_parent or not s.incompat & (BIT_DELTA | BIT_PARENT)), "superblock: kind and parent disagree", at)
    need(14 <= s.block_log2 <= 22 and s.align_log2 == 6 and 9 <= s.sector_log2 <= 12, "superblock: a bad size", at)
    s.sealed, s.keyed, s.split = s.incompat & SEALED, s.incompat & (SEALED | AUTHENTICATED), s.incompat & SPLIT
    need(s.keyed != SEALED | AUTHENTICATED and bool(s.keyed) == any(s.key_commitment), "superblock: a bad key", at)
    need(s.keyed or not s.incompat & KEY_SLOTS, "superblock: key slots without a key", at)
    need(not (s.segment_count or s.autoclear) and s.slot_area_len == 32768 * bool(s.incompat & KEY_SLOTS),
         "superblock: a bad value", at)
    need((s.segment_start == 0) == (s.segment_no == 0) and (s.split or not s.segment_no) and s.segment_no < 1000
         and s.segment_start % PIECE == 0 and s.segment_start < 1 << 54, "superblock: a bad segment", at)
    s.tail = TAIL_PARITY if s.incompat & BIT_PARITY else TAIL
    s.block_size, s.sector_size = 1 << s.block_log2, 1 << s.sector_log2
    s.blocks = -(-s.address_space_len // s.block_size)
    need(1 <= s.blocks <= 1 << 40, "superblock: a bad length of the address space", at)
    return s


def trailer(data, copy, sb, length, at):
    """A trailer that counts [11, opening, step 4]."""
    name = f"trailer {copy}"
    t = record(TRAILER, data, name, at, b"AIVTRAIL", b"aiv.trlr", "trailer")
    need(t.clean and (t.major, t.minor, t.copy) == (0, 3, copy), f"{name}: a bad value", at)
    need(t.file_len == length, f"{name}: the file has {length} bytes, not {t.file_len}", at)
    need(sb is None or any(t.mac) == bool(sb.keyed), f"{name}: authentication code and key", at)
    t.covered = data[:12] + b"\0" + data[13:512] + data[544:4060]  # by the mac, with the superblock
    for part in ("image_uuid", "set_uuid", "recovery_point", "parent_point", "parent_state_root"):
        need(sb is None or getattr(t, part) == getattr(sb, part), f"{name}: {part} of another image", at)
    return t


def levels(leaf_pages):
    """Pages of each level of the index, from level 0 to the root [5]."""
    counts = [leaf_pages] if leaf_pages else []
    while counts and counts[-1] > 1:
        counts.append(-(-counts[-1] // 84))
    return counts


# ---- trees of hashes [6]

def state_root(sb, content_root, map_root):
    sizes = le64(sb.address_space_len) + sb.block_size.to_bytes(4, "little") + sb.sector_size.to_bytes(4, "little")
    return keyed_hash("state", sizes + content_root + map_root)


def nodes(purpose, children, width, level):
    """The nodes of one level of a tree over children of `width` bytes, one behind the other."""
    step, prefix = 128 * width, le64(level)
    return b"".join(keyed_hash(purpose, prefix + children[i:i + step]) for i in range(0, len(children), step))


def tree_root(purpose, level_1):
    """The root over the nodes of level 1."""
    level, children = 2, level_1
    while len(children) > 32:
        children, level = nodes(purpose, children, 32, level), level + 1
    return children


# ---- frames [4]

def frame_at(stream, at, end, seal):
    """The frame at `at`, which must end before `end`: its checked header, and as `data` its payload before the codec;
    None when that is sealed and there is no key."""
    need(at % 64 == 0 and at + 64 <= end, "frame: no room for a header", at)
    header = stream.read(at, 64)
    f = record(FRAME, header, "header of the frame", at, b"AVF1", b"aiv.fram")
    need(DATA <= f.kind <= PAD, f"frame: unknown type {f.kind}", at)
    f.at, f.size = at, 64 + round_up(f.stored_len, 64)
    need(f.stored_len <= FRAME_MAX and at + f.size <= end, "frame: it ends behind its area, or is too long", at)
    data = stream.read(at + 64, f.size - 64)
    need(not any(data[f.stored_len:]), "frame: padding is not zero", at)
    f.data = data[:f.stored_len]
    need(f.payload_crc == crc(b"aiv.load", f.data), "frame: crc of the payload is wrong", at)
    if seal.sealed and f.kind in (DATA, DELTA, CHECKPOINT, META):
        need(f.stored_len >= 48 and not any(header[5:8] + header[32:44] + header[52:60]), "frame: not sealed", at)
        if seal.key is None:
            f.data = None
            return f
        key = "session frame key", f.session_tag + le64(f.seq >> 20)
        data = seal.decrypt(key, header[24:32] + header[20:24], f.data, header[:48], "frame", at)
        f.__dict__.update(vars(unpack(INNER_HEAD, data[:32])))
        f.data, padding = data[32:len(data) - f.pad_len], data[max(32, len(data) - f.pad_len):]
        need(f.clean and len(padding) == f.pad_len and not any(padding), "frame: a bad inner head or padding", at)
    else:
        need(f.nonce_salt == 0, "frame: nonce_salt in a frame that is not sealed", at)
    codecs = {DATA: (0, 1, 2), DELTA: (2,), META: (0, 2)}.get(f.kind, (0,))
    need(f.codec in codecs, f"frame: codec {f.codec} is not for type {f.kind}", at)
    need(f.plain_len <= FRAME_MAX and f.seq + 1 < 1 << 64, "frame: a bad plain_len or seq", at)
    need(f.codec or f.plain_len == len(f.data), "frame: two lengths without a codec", at)
    need(f.kind == DATA and f.flags <= 1 and f.depth <= 8 or not (f.flags or f.depth), "frame: bad flags or depth", at)
    need(f.kind in (DATA, DELTA) or not any(f.leaf_prefix), "frame: a leaf_prefix without a leaf", at)
    need(f.kind != PAD or f.subject == 0, "frame: a PAD with a subject", at)
    return f


def decode(frame, data, base=None):
    """The payload after its codec: exactly plain_len bytes."""
    try:
        if frame.codec == 1:
            data = lz4.block.decompress(data, uncompressed_size=frame.plain_len)
        elif frame.codec == 2:
            data = decode_zstd(frame, data, base)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError) as error:
        raise Damage(f"frame: cannot be decoded: {error}", frame.at) from None
    need(len(data) == frame.plain_len, "frame: decodes to another length", frame.at)
    return data


def decode_zstd(frame, data, base):
    need(data[:4] == b"\x28\xb5\x2f\xfd", "frame: no zstd frame", frame.at)
    told = zstandard.get_frame_parameters(data)
    # A length in the zstd frame is optional; one that is there would be allocated, so it comes first.
    need(told.content_size in (frame.plain_len, zstandard.CONTENTSIZE_UNKNOWN), "frame: zstd length", frame.at)
    need(told.window_size <= WINDOW_MAX and told.dict_id == 0, "frame: zstd window or dictionary", frame.at)
    prefix = base and zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decoder = zstandard.ZstdDecompressor(dict_data=prefix, max_window_size=WINDOW_MAX)
    return decoder.decompress(data, max_output_size=frame.plain_len, allow_extra_data=False)


# ---- pages and entries [5]

def page_at(stream, at, kind, page_no, level, image_uuid, seal):
    """A checked page: its header, its entries as bytes (None without the key), and all of its bytes as stored."""
    data, (salt, size, most) = stream.read(at, PAGE), {1: (b"aiv.indx", 48, 84), 2: (b"aiv.tree", 80, 50)}[kind]
    p = record(PAGE_HEADER, data, "page", at, b"AVP1", salt)
    need(p.clean and (p.kind, p.level, p.page_no, p.image_uuid) == (kind, level, page_no, image_uuid),
         "page: not the one that belongs here, or of another level", at)
    need(1 <= p.count <= most, f"page: {p.count} entries", at)
    p.data, p.entries, body = data, None, data[64:]
    if seal.sealed:
        need(p.first == 0, "page: sealed, and its first entry is told", at)
        if seal.key is None:
            return p
        key, nonce = ("index page key", image_uuid + seal.session_tag), le64(page_no) + kind.to_bytes(4, "little")
        body = seal.decrypt(key, nonce, body + p.tag, data[:40], "page", at)
    need(seal.sealed or not any(p.tag), "page: a tag without a key", at)
    need(not any(body[size * p.count:]), "page: not zero behind its entries", at)
    first = int.from_bytes(body[:8], "little") & ((1 << 40) - 1 if kind == 1 and level == 0 else -1)
    need(seal.sealed or p.first == first, "page: `first` is not its first entry", at)
    p.first, p.entries = first, body[:size * p.count]
    return p


class Entry:
    """One entry of the index: `run` blocks of one kind, from block `first` on."""

    __slots__ = ("first", "run", "end", "kind", "place", "leaf", "framed", "address", "size")

    def __init__(self, first, run, kind, place, leaf):
        self.first, self.run, self.end, self.kind, self.place, self.leaf = first, run, first + run, kind, place, leaf
        self.framed = kind in (K_DATA, K_DELTA, K_REF) or kind == K_UNREADABLE and place != 0
        self.address, self.size = (place & (1 << 48) - 1) * 64, (place >> 48) * 64  # of its frame, in bytes


def entries_of(data, sb, frames_end, at):
    """Checked entries, in the order they have in `data`; `sb` says which kinds and blocks there are."""
    out, end = [], 0
    for key, place, leaf in struct.iter_unpack("<QQ32s", data):
        e = Entry(key & (1 << 40) - 1, key >> 40 & (1 << 20) - 1, key >> 60, place, leaf)
        name = f"index entry of block {e.first}"
        need(K_DATA <= e.kind <= K_PARENT, f"{name}: kind {e.kind} is not for this image", at)
        need(e.kind != K_DELTA or sb.incompat & BIT_DELTA, f"{name}: DELTA without its feature", at)
        need(e.kind != K_PARENT or sb.incompat & BIT_PARENT, f"{name}: PARENT without its feature", at)
        need(e.run and e.first >= end and e.end <= sb.blocks, f"{name}: not in order, or outside", at)
        end = e.end
        if e.framed:
            need(e.run == 1 and e.size >= 128, f"{name}: a bad run or size", at)
            need(PAGE + sb.slot_area_len <= e.address <= frames_end - e.size, f"{name}: its frame lies outside", at)
        elif e.kind == K_PARENT:
            need(e.run == 1 and place < 1 << 40, f"{name}: a bad run or place", at)
        else:
            need(place == 0 and not any(leaf), f"{name}: a place or leaf without a frame", at)
        out.append(e)
    return out


# ---- META [8]: names of the tags from 1 on; n number, t text, bN bytes of length N, a table a group; + a list, ? may
# be absent

def table(words, **groups):
    rows = enumerate((word.split(":") for word in words.split()), 1)
    return {tag: (name, kind, groups[name]) if name in groups else (name, kind) for tag, (name, kind) in rows}


SECTIONS = {
    1: ("manifest", table("""host:t set:t source:t source_id:t full:n increment:n group:b16 time_unix_ms:n consistency:n
        capture:n comment:t""")),
    2: ("disk", table("length:n sector:n physical_sector:n model:t serial:t wwn:t table:t table_id:t table_problems:t+ "
                      "regions:+", regions=table(
        "kind:n start:n length:n entry:? volume:?",
        entry=table("number:n type:t unique:t name:t attributes:n boot:n"),
        volume=table("filesystem:t label:t uuid:t cluster:n capture:n why_whole:t used:n")))),
    3: ("inventory", table("facts:+", facts=table("key:t value:t"))),
    4: ("source_errors", table("ranges:b16+")),
    5: ("origins", table("sessions:b12+")),
    6: ("specification", table("text:t")),
    8: ("excluded_files", table("patterns:t+ count:n bytes:n files:+",
                                files=table("volume_start:n path:t length:n ranges:b16+"))),
    9: ("roots", table("content:b32 map:b32 state:b32")),
    10: ("trackers", table(
        "bytes_that_mattered:b32 trackers:+ used:?", used=table("name:t not_read:n compared:n"),
        trackers=table("kind:t name:t granularity:n depends_on:b32 marked:n places:n+ not_marked:n?"))),
}


def items(data, table, at, depth=1):
    """One section or group as a dictionary."""
    need(depth <= 8, "META: groups nest too deep", at)
    out = {row[0]: [] if "+" in row[1] else "" if row[1] == "t" else None for row in table.values()}
    place, count, seen = 0, 0, set()
    while place < len(data):
        need(place + 8 <= len(data), "META: an item is cut off", at)
        tag, flags, size = struct.unpack_from("<HHI", data, place)
        value = data[place + 8:place + 8 + size]
        place, count = place + 8 + size, count + 1
        need(place <= len(data) and count <= 1 << 20 and flags <= 1, "META: a bad item", at)
        if tag not in table:
            need(flags & 1, f"META: unknown tag {tag}", at)
            continue
        name, kind, *group = table[tag]
        need("+" in kind or tag not in seen, f"META: {name} occurs twice", at)
        seen.add(tag)
        value = items(value, group[0], at, depth + 1) if group else item(value, kind.strip("+?"), name, at)
        if "+" in kind:
            out[name].append(value)
        else:
            out[name] = value
    for name, kind, *_ in table.values():
        need(out[name] is not None or "?" in kind, f"META: {name} is missing", at)
    return out


def item(value, kind, name, at):
    if kind == "t":
        return utf8(value, f"META: {name}", at)
    need(len(value) == (8 if kind == "n" else int(kind[1:])), f"META: {name} has a bad length", at)
    return int.from_bytes(value, "little") if kind == "n" else value
