"""The files of an image, the image in them, and images that build on one another: docs/format.md, sections 3 to 11."""
import functools, os, weakref
from aivformat import (
    BLOCKS, DELTA_HEAD, FILL, FRAME, INDEX_ENTRY, INNER_ENTRY, LOCAL_BASE, LOCAL_HEAD, PAGE, PAGE_HEADER, PIECE,
    SEGMENT, SUPERBLOCK, TAIL, TAIL_PARITY, TRAILER, TREE_NODE, Damage, Refused, attempt, decode, entries_of, frame_at,
    frames, guarded, keyed_hash, meta_of, need, round_up, rules, state_root, superblock, trailers)
from aivkeys import Ring, Seal, key_area
LAST_PARITY = 266240  # bytes of the PARITY frame that ends a frame area
BLOCKS_MAX = 1 << 26  # a state is held in memory here, so this program stops long before the format does
class FileStream:  # the bytes of one file
    segments = ()
    def __init__(self, path):
        self.path, self.file, self.length = path, open(path, "rb"), os.stat(path).st_size
        weakref.finalize(self, self.file.close)
    def read(self, at, size):
        need(0 <= at and at + size <= self.length, f"{size} bytes lie behind the end of the file", at)
        data = guarded("cannot be read", at, OSError, os.pread, self.file.fileno(), size, at)
        need(len(data) == size, "the file became shorter while it was read", at)
        return data

class Segment:  # one file of a split image: where its slice lies in it (`at`) and in the stream (`start`)
    def __init__(self, stream):
        self.stream, n, (first, copy) = stream, stream.length, superblocks(stream)
        good, found = trailers(SEGMENT, stream, TAIL)
        known, self.trailer = first or copy, good[-1] if good else None
        self.found = found * bool(good) + [first] * (not first)
        if self.trailer:
            need(known and len(good + found) == 2, "segment: no superblock, or two different trailers", n - TAIL)
            SEGMENT.same(self.trailer, n - PAGE, known)
        # Of the last one the image's trailer tells which it is, and by the lengths where the slice begins.
        last = None if self.trailer or first else TRAILER.read(stream.read(n - PAGE, PAGE), n - PAGE)
        self.number = last.segment_count - 1 if last else known.segment_no
        self.at = PAGE * (self.number > 0)
        self.length = self.trailer.slice_len if self.trailer else n - self.at
        self.start = last.file_len - self.length if last else known.segment_start

class Joined:  # the slices of all segments, in the place of a file
    def __init__(self, segments):
        self.segments, self.length = sorted(segments, key=lambda s: s.number), 0
        for number, s in enumerate(self.segments):
            last, told = s is self.segments[-1], f"segment {number + 1 + (s.number == number)} of the image is missing"
            need(s.number <= number and not (last and s.trailer), told, None, Refused)
            need(s.number == number, f"{s.stream.path}: another file is segment {s.number + 1}, too")
            rules(s.stream.path, None, start=s.start == self.length, end=last or s.trailer)
            self.length += s.length
    def read(self, at, size):
        need(0 <= at and at + size <= self.length, f"{size} bytes lie behind the end of the image", at)
        parts = ((s, max(at, s.start), min(at + size, s.start + s.length)) for s in self.segments)
        return b"".join(s.stream.read(s.at + start - s.start, end - start) for s, start, end in parts if start < end)
def superblocks(stream): return [attempt(superblock, stream, at) for at in (0, stream.length - 2 * PAGE)]
def stream_of(path, given):  # of the image that `path` is, or is a segment of; others lie beside it, or were given
    def uuids(stream): return {s.image_uuid for s in superblocks(stream) if s and "split" in s.features}
    stream, folder = FileStream(path), os.path.dirname(os.path.realpath(path))
    paths = {os.path.realpath(p) for p in (path, *given, *(os.path.join(folder, name) for name in os.listdir(folder)))}
    others = (FileStream(p) for p in sorted(paths) if os.path.isfile(p) and os.access(p, os.R_OK))
    return Joined([Segment(other) for other in others if uuids(other) & uuids(stream)]) if uuids(stream) else stream
def levels(leaf_pages):  # pages of each level of the index, from level 0 to the root [5]
    return [leaf_pages] * (leaf_pages > 0) + (levels(-(-leaf_pages // 84)) if leaf_pages > 1 else [])

class Image:  # one that is finished and whose tail fits its length; `found` lists damage that did not stop it
    def __init__(self, path, ring=None, stream=None, given=()):
        self.path, self.stream, self.found = path, stream or stream_of(path, given), []
        self.superblock = s = self.open_superblock(self.stream.length, self.stream.read)
        self.trailer = t = self.open_trailer(self.stream.length, s.tail)
        self.check_areas(t, s, self.stream.length - PAGE)
        self.parent, self.whole = None, not s.has_parent  # until it is linked
        places = (PAGE, self.stream.length - s.tail + PAGE) if s.slot_area_len else ()
        self.slots = [attempt(key_area, self.stream, s, at) for at in places]
        self.seal = Seal(s, (ring or Ring()).key_for(s, [area for area in self.slots if area]))
        for copy in self.counting if self.seal.key else ():
            need(copy.mac == self.seal.mac(copy, s), f"superblock or trailer {copy.copy}: forged or damaged")
        root = t.state_root if self.seal.sealed else state_root(s, t.content_root, t.map_root)
        TRAILER.same(t, self.stream.length - PAGE, state_root=root)
        meta = {} if self.seal.locked else attempt(self.open_meta, t.meta_offset)
        self.meta, self.found = meta or None, self.found + [meta] * isinstance(meta, Damage)
    def open_superblock(self, n, read):  # steps 1 and 2 of opening
        need(n >= PAGE, f"not an image: {n} bytes", None, Refused)
        places = (0, n - 2 * PAGE) if n >= PAGE + TAIL else (0,)
        for s in (attempt(superblock, self.stream, at) for at in places):
            if s: return s
            if isinstance(s, Refused): raise s
            self.found.append(s)
        intact = len(places) > 1 and any(trailers(TRAILER, self.stream, tail)[0] for tail in (TAIL, TAIL_PARITY))
        known = intact or any(read(at, 8) == SUPERBLOCK.magic for at in places)
        raise s if known else Refused("not an image: no superblock")
    def open_trailer(self, n, tail):  # steps 3 and 4
        need(n >= PAGE + tail, "unfinished: no room for a trailer", None, Refused)
        self.counting, found = trailers(TRAILER, self.stream, tail, self.superblock)
        self.found += found * bool(self.counting)
        if self.counting: return self.counting[-1]
        starts = (self.stream.read(n - tail, 13), b"\1"), (self.stream.read(n - PAGE, 13), b"\2")
        tried = [p for p, (start, copy) in zip(found, starts) if start[:8] + start[12:] == TRAILER.magic + copy]
        raise tried[0] if tried else Refused("unfinished, or cut off: no trailer")
    def check_areas(self, t, s, at):  # step 5
        last, count = t.frames_end - LAST_PARITY, len(self.stream.segments)
        TRAILER.same(t, at, index_offset=t.frames_end, index_pages=sum(levels(t.index_leaf_pages)), segment_count=count,
            tree_offset=t.index_offset + PAGE * t.index_pages, meta_offset=t.tree_offset + PAGE * t.tree_pages,
            stored_offset=round_up(t.meta_offset + t.meta_len, PAGE), stored_pieces=-(-t.stored_offset // PIECE),
            parity_offset=round_up(t.stored_offset + 32 * t.stored_pieces, PAGE),
            file_len=t.parity_offset + t.parity_len + s.tail)
        groups = [PAGE * (2 * -(-(n + 4 * stripes) // 252) + 4 * stripes) for n, stripes in self.parity_groups()]
        rules("trailer", at, meta_len=t.meta_len <= 32 << 20, parity_len=t.parity_len == sum(groups),
              frames_end=t.frames_end in range(PAGE + s.slot_area_len, at, PAGE),
              last_checkpoint=t.last_checkpoint in range(PAGE, t.frames_end, 64),
              stripes="parity" not in s.features or last > 0 and last % PIECE == 0,
              index_root=t.index_pages or s.has_parent and not any(t.index_root))
        need(s.blocks <= BLOCKS_MAX, f"{s.blocks} blocks are more than this program holds in memory", error=Refused)
    def without_slots(self, at, size):  # bytes of the stream in which the key slots count as zeros
        data, slots = self.stream.read(at, size), self.superblock.slot_area_len
        return data if at else data[:PAGE] + bytes(slots) + data[PAGE + slots:]
    def parity_groups(self):  # pages and stripes of each group of the parity area [7]
        pages = 1 + (self.trailer.parity_offset - self.trailer.index_offset) // PAGE
        groups, least = -(-pages // 512), 13 * ("parity" in self.superblock.features)
        sizes = (pages // groups + (i < pages % groups) for i in range(groups))
        return [(n, max(-(-n // 16), least)) for n in sizes]
    def open_meta(self, at):  # step 7, and of a sealed image step 6
        t, shown = self.trailer, self.seal.shown
        TRAILER.same(t, at, meta_hash=keyed_hash("section", self.stream.read(at, t.meta_len)))
        meta = meta_of(frames(self.stream, at, at + t.meta_len, self.seal), self.superblock, at)
        if self.seal.sealed:
            content, states, state = meta["roots"].values()
            TRAILER.same(t, at, content_root=shown(content), map_root=shown(states), state_root=shown(state))
            rules("META", at, state_root=state == state_root(self.superblock, content, states))
        return meta
    def page(self, kind, number, level=0):  # of the index (kind 1) or the trees (2); with entries if there is the key
        s, t, seal, layout = self.superblock, self.trailer, self.seal, (INDEX_ENTRY, TREE_NODE)[kind - 1]
        at, size = (t.index_offset, t.tree_offset)[kind - 1] + PAGE * number, layout.form.size
        p = PAGE_HEADER.read(self.stream.read(at, PAGE), at, kind)
        PAGE_HEADER.same(p, at, s, kind=kind, level=level, page_no=number)
        rules("page", at, count=1 <= p.count <= (PAGE - 64) // size, tag=seal.sealed or not any(p.tag),
              first=not (seal.sealed and p.first))
        p.at, p.entries, body = at, None, p.data[64:]
        if seal.sealed and seal.key:
            nonce = number.to_bytes(8, "little") + kind.to_bytes(4, "little")
            body = seal.decrypt("index page key", s.image_uuid + t.session_tag, nonce, body + p.tag, p.data[:40], at)
        if not seal.locked:
            first = int.from_bytes(body[:8], "little") & (-1 if kind == 2 or level else (1 << 40) - 1)
            rules("page", at, padding=not any(body[size * p.count:]), first=seal.sealed or p.first == first)
            p.first, p.entries = first, body[:size * p.count]
        return p
    @functools.cached_property
    def entries(self):  # by block, of all pages from level 0 up; an inner page must be what its children give
        t, s, at, number, children, entries = self.trailer, self.superblock, self.trailer.index_offset, 0, b"", {}
        for level, count in enumerate(levels(t.index_leaf_pages)):
            pages = [self.page(1, number + i, level) for i in range(count)]
            given = b"".join(page.entries or b"" for page in pages)
            rules("index", at, children=level == 0 or self.seal.locked or given == children,
                  count=level == 0 or all(page.count == 84 for page in pages[:-1]))
            entries = entries_of(given, s, t.frames_end, at) if level == 0 else entries
            children = b"".join(INNER_ENTRY.form.pack(p.first, bytes(8), keyed_hash("page", p.data)) for p in pages)
            number += count
        rules("index", at, root=children[16:] == t.index_root if children else True,
              gap=s.has_parent or self.seal.locked or len(entries) == s.blocks)
        return entries
    def block_len(self, block):
        return min(self.superblock.block_size, self.superblock.address_space_len - block * self.superblock.block_size)
    def frame_of(self, block):  # the frame of a block, compared with its entry
        entry = self.entries[block]
        f = frame_at(self.stream, entry.address, self.trailer.frames_end, self.seal)
        own = {} if entry.kind == "REF" else {"subject": block, "flags": int(entry.kind == "UNREADABLE")}
        FRAME.same(f, f.at, type=entry.kind if entry.kind in BLOCKS else "DATA", plain_len=self.block_len(block),
                   leaf_prefix=entry.leaf[:8], size=max(entry.size, f.size * (entry.size == 0xFFFF * 64)), **own)
        return f
    def line(self):  # this image and those it builds on, newest first
        while self:
            yield self
            self = self.parent
    def states(self):  # from the oldest image to this one: of all blocks of its state the entry, and whose that is
        state = []
        for image in reversed([*self.line()]):
            older, state = state, []
            for block in range(image.superblock.blocks):
                need(block in image.entries or block < len(older) and older[block][0].kind != "UNREADABLE"
                     and image.block_len(block) == image.parent.block_len(block),
                     f"{image.path}: block {block} is inherited, and unreadable, absent or longer or shorter there")
                state.append((image.entries[block], image) if block in image.entries else older[block])
            yield image, state
    def find(self, block):  # the entry that decides a block of this image's state, and the image that has it
        for image in self.line():
            need(block < image.superblock.blocks, f"the state has no block {block}")
            if block in image.entries: return image.entries[block], image
        raise Damage(f"block {block} is in a parent that is not there")
    def leaf(self, entry, block): return entry.leaf if entry.hashed else uniform(entry.kind, self.block_len(block))[1]
    def base(self, block, other, leaf):  # the same of a block of the parent's state that `block` is made from
        entry, image = self.parent.find(other)
        need(self.block_len(block) == self.parent.block_len(other) and image.leaf(entry, other) == leaf,
             f"block {block} is made from one of another length or leaf")
        return entry, image
    def read(self, block, differences=0):  # the bytes of a block of this image's state, proven by its leaf
        entry, image = self.find(block)
        leaf = image.leaf(entry, block)
        while entry.kind == "PARENT":
            other = entry.place
            (entry, image), block = image.base(block, other, leaf), other
        if not entry.framed: return uniform(entry.kind, image.block_len(block))[0]
        frame, prefix = image.frame_of(block), b""
        skip, bases = bases_of(frame) if frame.type != "DATA" else (0, [])
        need(not bases or differences < 8, f"block {block} is more than 8 differences deep", frame.at)
        for other, base_leaf in bases:
            own = image.entries.get(other) if other < block else None
            if frame.type == "DELTA": image.base(block, other, base_leaf)
            else: rules("LOCAL", frame.at, base=own and own.kind in ("DATA", "REF") and own.leaf == base_leaf)
            prefix += (image.parent if frame.type == "DELTA" else image).read(other, differences + 1)
        data = decode(frame, skip, prefix)
        need(keyed_hash("leaf", data) == leaf, f"block {block}: its bytes have another leaf", frame.at)
        return data

def bases_of(frame):  # where the zstd frame of a difference begins, and the blocks it is made from with their leaves
    layout = DELTA_HEAD if frame.type == "DELTA" else LOCAL_HEAD
    head, start = layout.read(frame.data, frame.at), layout.form.size
    end = start + LOCAL_BASE.form.size * getattr(head, "count", 0)
    rules(layout.name, frame.at, depth=1 <= getattr(head, "depth", 1) <= 8, count=1 <= getattr(head, "count", 1) <= 2,
          length=len(frame.data) >= end)
    return end, [*LOCAL_BASE.form.iter_unpack(frame.data[start:end])] or [(head.base_block, head.base_leaf)]
@functools.lru_cache(16)
def uniform(kind, length):  # bytes and leaf of a block that no frame holds
    data = (FILL * (length // 16 + 1))[:length] if kind == "UNREADABLE" else bytes(length)
    return data, keyed_hash("leaf", data)

def link(images):  # gives images their parents, in whatever order they are; none where the chain is not whole
    whole, waiting = {(bytes(16), bytes(32)): None}, [*images]  # by the point and the state that they provide
    while ready := [i for i in waiting if (i.superblock.parent_point, i.superblock.parent_state_root) in whole]:
        for image in ready:
            waiting.remove(image)
            s = image.superblock
            image.parent, image.whole = whole[s.parent_point, s.parent_state_root], True
            line = [other.superblock for other in image.line()]
            need(len({one.recovery_point for one in line}) == len(line) <= 10000, "chain: a point twice, or too long")
            names = "set_uuid", "block_size", "sector_size", "key_commitment", "keyed"
            rules("chain", None, **{name: getattr(line[-1], name) == getattr(s, name) for name in names})
            whole.setdefault((s.recovery_point, image.trailer.state_root), image)
