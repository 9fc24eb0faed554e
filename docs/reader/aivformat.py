"""The records of the Aivory image format: bytes in, checked values out. Numbers in brackets are sections of
docs/format.md, which is all that this reader was made from. What that says in tables is read from there."""
import pathlib, re, struct
from collections import namedtuple
from types import SimpleNamespace
import google_crc32c, lz4.block, zstandard
from blake3 import blake3
DOCUMENT = pathlib.Path(__file__).resolve().parents[1].joinpath("format.md").read_text(encoding="utf-8")
PAGE, PIECE, FRAME_MAX, WINDOW_MAX, FILL = 4096, 65536, 16 << 20, 1 << 23, b"!AIV-UNREADABLE!"
TAIL, TAIL_PARITY = 3 * PAGE + 65536, 3 * PAGE + 4 * 65536  # trailer 1, gap, superblock copy, trailer 2
class Problem(Exception):  # false, where a record would be true
    def __init__(self, what, at=None): super().__init__(what if at is None else f"{what} (at 0x{at:x})")
    def __bool__(self): return False
class Damage(Problem): pass  # the bytes contradict the format
class Refused(Problem): pass  # not damaged: no image, unfinished, or of a version or with features not known here

def need(true, what, at=None, error=Damage):
    if not true: raise error(what, at)
def rules(name, at, /, **holds):  # several needs: what each is about, and whether it is right
    for what, true in holds.items(): need(true, f"{name}: a bad {what}", at)
def attempt(function, *arguments):  # what a function gives, or the problem that it found
    try: return function(*arguments)
    except Problem as problem: return problem
def guarded(what, at, errors, function, *arguments, **more):  # what somebody else's code gives; its errors are damage
    try: return function(*arguments, **more)
    except errors as error: raise Damage(f"{what}: {str(error) or 'forged or damaged'}", at) from None
def round_up(number, to): return -(-number // to) * to
def crc(salt, data): return google_crc32c.extend(google_crc32c.extend(0, salt), bytes(data))

def table(mark):  # the first table of the document behind a mark: its rows as lists of cells, without the heading
    rows = re.search(re.escape(mark) + r"[\s\S]*?\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT)[1]
    return [[cell.strip(" `") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows.splitlines()]

KNOWN = {*"sealed authenticated split delta parent-blocks parity key-slots local-delta".split()}
FEATURES = {name: 1 << int(bit) for bit, name, _ in table("| bit | name | stands for |")}
NEEDS = {text.split()[2]: 1 << int(bit) for bit, _, text in table("| bit | name |") if text.startswith("entry kind")}
KINDS = {int(row[0]): row[1:] for row in table("| kind | name | place | run | reads as | condition |")}
TYPES = {int(row[0]): row[1] for row in table("| type | name | subject | payload |")}
KEYS = dict(re.findall(r'(?m)^(\w+) +"(aivory draft: .{18})"$', DOCUMENT))
DEFINITIONS = dict(table("| value | definition |"))
def keyed_hash(purpose, data):  # by the name of a key in section 6, or by the words of another one
    return blake3(data, key=KEYS.get(purpose, f"aivory draft: {purpose}".ljust(32)).encode()).digest()

class Layout:  # a record of fixed size, as the table behind `<!-- layout: NAME SIZE -->` describes it
    def __init__(self, name, hashed=None):
        self.name, self.hashed, form = re.sub("(?<=[a-z])([A-Z])", r" \1", name).lower(), hashed, "<"
        self.meanings, integers = {}, {"1": "B", "2": "H", "4": "I", "8": "Q"}
        for offset, size, field, meaning in table(f"<!-- layout: {name} "):
            need(struct.calcsize(form) == int(offset), f"docs/format.md: {name}.{field} is not where it should be")
            form += size + "s" if field in ("magic", "leaf_prefix", "reserved") else integers.get(size, size + "s")
            self.meanings[field if field != "reserved" else f"reserved at {offset}"] = DEFINITIONS.get(meaning, meaning)
        self.form, magic = struct.Struct(form), self.meanings.get("magic", "").partition(" (")[0]
        self.magic = bytes.fromhex(magic) if " " in magic else magic.encode()
        self.salts = re.findall(r"`(aiv\.\w+)`", self.meanings.get("crc", ""))
        self.shared = [field for field, text in self.meanings.items() if text.startswith("as in the superblock")]
    def covered(self, field, data):  # the bytes that a checksum or code is over: those that its row names as [from, to)
        return b"".join(data[int(a):int(b)] for a, b in re.findall(r"\[(\d+), (\d+)\)", self.meanings[field]))
    def read(self, data, at, kind=1, early=None):  # the values by name, checked; each kind has its own salt
        values = dict(zip(self.meanings, guarded(self.name, at, struct.error, self.form.unpack_from, data)))
        r = SimpleNamespace(data=data, **{field: value for field, value in values.items() if " " not in field})
        rules(self.name, at, magic=not self.magic or r.magic == self.magic,
              crc=not self.salts or r.crc == crc(self.salts[kind - 1].encode(), self.covered("crc", data)),
              hash=not self.hashed or r.hash == keyed_hash(self.hashed, self.covered("hash", data)))
        if early: early(r, at)
        rules(self.name, at, reserved=not any(any(value) for field, value in values.items() if " " in field))
        return r
    def same(self, r, at, sb=None, /, **expected):  # fields have these values, or are as in the superblock `sb`
        expected |= {field: getattr(sb, field) for field in self.shared if sb}
        rules(self.name, at, **{field: getattr(r, field) == value for field, value in expected.items()})
SUPERBLOCK, TRAILER, SEGMENT = Layout("Superblock"), Layout("Trailer", "trailer"), Layout("SegmentTrailer", "segment")
FRAME, INNER_HEAD, DELTA_HEAD, LOCAL_HEAD, LOCAL_BASE, CHECKPOINT_HEAD = map(
    Layout, "FrameHeader InnerHead DeltaHead LocalHead LocalBase CheckpointHead".split())
PAGE_HEADER, INDEX_ENTRY, INNER_ENTRY, TREE_NODE = map(Layout, "PageHeader IndexEntry InnerEntry TreeNode".split())
def label(data, what, at):  # a text of fixed length, padded with zeros, without control characters
    text = guarded(what, at, UnicodeDecodeError, data.rstrip(b"\0").decode)
    need(not re.search(r"[\0-\x1f\x7f-\x9f]", text), f"{what} has a control character", at)
    return text
def newer(s, at):  # what is newer than this program is refused by its name, and not called damaged
    need((s.major, s.minor) == (0, 3), f"the image has format {s.major}.{s.minor}, this program reads 0.3", at, Refused)
    rows = [s.feature_names[i:i + 48] for i in range(0, 1536, 48)]
    told = {1 << row[1]: repr(row[4:].rstrip(b"\0").decode(errors="replace")) for row in rows if row[0] == 1}
    told |= {1 << bit: f"bit {bit}" for bit in range(64) if 1 << bit not in told} | {v: k for k, v in FEATURES.items()}
    bits = {name for bit, name in told.items() if s.incompat & bit}
    need(bits <= KNOWN, f"it needs features this program does not have: {', '.join(bits - KNOWN)}", at, Refused)

def superblock(stream, at):  # a checked one [3], in the order of checks the document gives
    s = SUPERBLOCK.read(stream.read(at, PAGE), at, early=newer)
    s.features = has = [name for name, bit in FEATURES.items() if s.incompat & bit]
    s.keyed, s.has_parent = [name for name in has if name in ("sealed", "authenticated")], any(s.parent_point)
    s.writer, s.tail = label(s.writer, "superblock: writer", at), TAIL_PARITY if "parity" in has else TAIL
    s.block_size, s.sector_size = 1 << s.block_log2, 1 << s.sector_log2
    s.blocks = -(-s.address_space_len // s.block_size)
    rules("superblock", at, kind=1 <= s.kind <= 3 and (s.kind == 1) != s.has_parent, autoclear=s.autoclear == 0,
          id=any(s.image_uuid) and any(s.set_uuid) and any(s.recovery_point) and s.parent_point != s.recovery_point,
          parent=s.has_parent or not (any(s.parent_state_root) or {"delta", "parent-blocks"} & {*has}),
          size=14 <= s.block_log2 <= 22 and s.align_log2 == 6 and 9 <= s.sector_log2 <= 12 and 1 <= s.blocks <= 1 << 40,
          key=len(s.keyed) < 2 and bool(s.keyed) == any(s.key_commitment) and (s.keyed or "key-slots" not in has),
          slot_area_len=s.slot_area_len == 32768 * ("key-slots" in has), segment_count=s.segment_count == 0,
          segment_no=s.segment_no < 1000 and ("split" in has or not s.segment_no),
          segment_start=s.segment_start in range(0, 1 << 54, PIECE) and (s.segment_start == 0) == (s.segment_no == 0))
    return s

def trailers(layout, stream, tail, sb=None):  # those of both that count [11, step 4], and what is wrong with them
    def one(copy, at):
        t = layout.read(stream.read(at, PAGE), at)
        layout.same(t, at, sb, major=0, minor=3, copy=copy, file_len=stream.length)
        if layout is TRAILER: rules("trailer", at, mac=not sb or any(t.mac) == bool(sb.keyed))
        else: layout.same(t, at, slice_len=PIECE * max(1, t.pieces), segment_start=PIECE * t.first_piece,
                          file_len=PAGE * (t.segment_no > 0) + t.slice_len + round_up(32 * t.pieces, PAGE) + TAIL)
        return t
    both = [attempt(one, copy, stream.length - back) for copy, back in ((1, tail), (2, PAGE))]
    good, found = [t for t in both if t], [t for t in both if not t]
    if len({t.data[:12] + t.data[13:4060] for t in good}) == 2:  # equal but for copy, hash and crc
        found.append(Damage(f"the two copies of the {layout.name} differ", stream.length - tail))
    return good, found

def state_root(sb, content, states):
    form = "<QII32s32s"
    return keyed_hash("state", struct.pack(form, sb.address_space_len, sb.block_size, sb.sector_size, content, states))
def nodes(purpose, children, width=32, level=1):  # one level of a tree [6] over children of `width` bytes
    parts = (children[i:i + 128 * width] for i in range(0, len(children), 128 * width))
    return b"".join(keyed_hash(purpose, level.to_bytes(8, "little") + part) for part in parts)
def tree_root(purpose, level_1, level=2):  # the root over the nodes of level 1
    return level_1 if len(level_1) <= 32 else tree_root(purpose, nodes(purpose, level_1, 32, level), level + 1)

CODECS = dict(DATA=(0, 1, 2), DELTA=(2,), LOCAL=(2,), CHECKPOINT=(0,), META=(0, 2), PARITY=(0,), PAD=(0,))
BLOCKS, SEALED = [*CODECS][:3], [*CODECS][:5]  # the types of frames that hold blocks, and those that may be sealed
def frames(stream, at, end, seal):  # every frame of an area [4], without a byte between them
    while at < end:
        frame = frame_at(stream, at, end, seal)
        yield frame
        at += frame.size
def frame_at(stream, at, end, seal):  # its checked header; as `data` the payload before the codec, None without the key
    need(at % 64 == 0 and at + 64 <= end, "frame: no room for a header", at)
    header = stream.read(at, 64)
    f = FRAME.read(header, at)
    f.at, f.size, f.type = at, 64 + round_up(f.stored_len, 64), TYPES.get(f.kind)
    rules("frame", at, type=f.type in CODECS, stored_len=f.stored_len <= FRAME_MAX and at + f.size <= end)
    stored, sealed = stream.read(at + 64, f.size - 64), seal.sealed and f.type in SEALED
    f.data = stored[:f.stored_len]
    rules("frame", at, payload_crc=f.payload_crc == crc(b"aiv.load", f.data), padding=not any(stored[f.stored_len:]),
          seal=not sealed or f.stored_len >= 48 and not any(header[5:8] + header[32:44] + header[52:60]))
    if sealed and not seal.key: return SimpleNamespace(**{**vars(f), "data": None})
    if sealed:
        info, nonce = f.session_tag + (f.seq >> 20).to_bytes(8, "little"), header[24:32] + header[20:24]
        content = seal.decrypt("session frame key", info, nonce, f.data, header[:48], at)
        vars(f).update(vars(INNER_HEAD.read(content[:32], at)))
        f.data, padding = content[32:len(content) - f.pad_len], content[max(32, len(content) - f.pad_len):]
        rules("inner head", at, pad_len=padding == bytes(f.pad_len))
    rules("frame", at, codec=f.codec in CODECS[f.type], seq=f.seq + 1 < 1 << 64, nonce_salt=sealed or f.nonce_salt == 0,
          plain_len=f.plain_len <= FRAME_MAX and (f.codec or f.plain_len == len(f.data)),
          flags=f.flags <= (f.type == "DATA"), depth=f.depth <= 8 * (f.type == "DATA"),
          leaf_prefix=f.type in BLOCKS or not any(f.leaf_prefix), subject=f.type != "PAD" or f.subject == 0)
    return f

def decode(frame, skip=0, prefix=b""):  # the payload behind `skip` bytes after its codec: exactly plain_len bytes
    errors = lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError
    data, size, what = frame.data[skip:], frame.plain_len, ("frame: cannot be decoded", frame.at, errors)
    if frame.codec == 1: data = guarded(*what, lz4.block.decompress, data, uncompressed_size=size)
    elif frame.codec == 2:
        told = guarded(*what, zstandard.get_frame_parameters, data)
        # A length in the zstd frame is optional; one that is there would be allocated, so it comes first.
        rules("zstd frame", frame.at, magic=data[:4] == b"\x28\xb5\x2f\xfd", dictionary=told.dict_id == 0,
              length=told.content_size in (size, zstandard.CONTENTSIZE_UNKNOWN), window=told.window_size <= WINDOW_MAX)
        raw = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        decoder = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=WINDOW_MAX)
        data = guarded(*what, decoder.decompress, data, max_output_size=size, allow_extra_data=False)
    rules("frame", frame.at, length=len(data) == size)
    return data

Entry = namedtuple("Entry", "kind place leaf framed hashed condition address size")
def entries_of(data, sb, frames_end, at):  # checked entries of the index [5]: the one of each block, in ascending order
    out, end = {}, 0
    for key, place, leaf in INDEX_ENTRY.form.iter_unpack(data):
        first, run, kind = key % (1 << 40), key >> 40 & (1 << 20) - 1, key >> 60
        address, size = place % (1 << 48) * 64, (place >> 48) * 64  # of its frame, in bytes
        kind, places, runs, _, condition = KINDS.get(kind, ("unknown", "", "", "", 0))
        framed = places == "frame" or places == "0 or frame" and place != 0
        hashed, inside = framed or kind == "PARENT", PAGE + sb.slot_area_len <= address <= frames_end - size
        rules(f"index entry of block {first}", at, kind=runs and not NEEDS.get(kind, 0) & ~sb.incompat,
              order=run and end <= first, end=first + run <= sb.blocks, leaf=hashed or not any(leaf),
              run=run == 1 or runs != "1" and not framed,
              place=size >= 128 and inside if framed else place < (1 << 40 if kind == "PARENT" else 1))
        end = first + run
        out |= dict.fromkeys(range(first, end), Entry(kind, place, leaf, framed, hashed, int(condition), address, size))
    return out

# META [8]: of each section and group the name, type and least and most number of its items, in the order of their tags.
ITEMS = {name: [re.fullmatch(r"(\w+):([\w-]+)([?*+]?)(\d*)", word).groups() for word in words.split()]
         for name, words in re.findall(r"(?m)^(\w+) += ((?:\w+:.*(?:\n   .*)*))", DOCUMENT)}
SECTIONS = {int(number): name.replace(" ", "_") for number, name, _ in table("| type | section | presence |")}
def items(data, group, at, depth=1):  # a section or group as a dictionary
    names, out, place, count = dict(enumerate(ITEMS[group], 1)), {name: [] for name, *_ in ITEMS[group]}, 0, 0
    while place < len(data):
        tag, flags, size = guarded("META", at, struct.error, struct.unpack_from, "<HHI", data, place)
        value, place, count = data[place + 8:place + 8 + size], place + 8 + size, count + 1
        rules("META", at, depth=depth <= 8, tag=tag in names or flags, flags=flags <= 1, count=count <= 1 << 20,
              length=place <= len(data))
        if tag in names: out[names[tag][0]].append(item(value, names[tag][1], at, depth))
    for name, kind, many, most in names.values():
        single, least = many in ("", "?"), 0 if many in ("?", "*") or kind == "t" else 1
        rules("META", at, **{name: least <= len(out[name]) <= (1 if single else int(most or 1 << 20))})
        if single: out[name] = (out[name] or ["" if kind == "t" else None])[0]
    return out
def item(value, kind, at, depth):
    if kind in ITEMS: return items(value, kind, at, depth + 1)
    if kind == "t": return guarded("META", at, UnicodeDecodeError, value.decode)
    low, high = map(int, kind.split("-") if "-" in kind else (0, 1 << 64))
    number, size = int.from_bytes(value, "little"), int(kind[1:]) if kind[0] == "b" else 8
    rules("META", at, length=len(value) == size, number=kind[0] == "b" or low <= number <= high)
    return value if kind[0] == "b" else number
def meta_of(frames, sb, at):  # the sections that are known, and rules that join several items
    meta = {}
    for count, frame in enumerate(frames):
        name = SECTIONS.get(frame.subject)
        rules("META", frame.at, type=frame.type == "META", count=count < 256, section=name not in meta)
        if name in ITEMS: meta[name] = items(decode(frame), name, frame.at)
    need({"manifest", "disk", "origins"} <= meta.keys(), "META: a section is missing", at)
    disk, end, excluded = meta["disk"], 0, meta.get("excluded_files", {"files": [], "count": 0})
    for region in disk["regions"]:
        rules("META region", at, start=region["start"] == end, length=region["length"],
              kind=region["kind"] == 4 or not (region["entry"] or region["volume"]))
        end += region["length"]
    rules("META", at, roots=("roots" in meta) == ("sealed" in sb.features), sector=disk["sector"] == sb.sector_size,
          length=disk["length"] == end == sb.address_space_len, files=len(excluded["files"]) <= excluded["count"],
          table=disk["table"] in ("gpt", "mbr", "none"), places=all(
              sorted({*t["places"]}) == t["places"] for t in meta.get("change_trackers", {}).get("trackers", [])))
    for part in [meta.get("source_errors", {"ranges": []}), *excluded["files"]]:
        end = 0
        for start, length in map(struct.Struct("<QQ").unpack, part["ranges"]):
            rules("META", at, range=start >= end and length and start + length <= sb.address_space_len)
            end = start + length
    return meta
