"""One image opened, and images that build on one another: docs/format.md, sections 3 to 6 and 11."""

import bisect
import struct

from aivformat import (
    BIT_PARITY, CONDITION, DATA, DELTA, DELTA_HEAD, FILL, K_DELTA, K_PARENT, K_REF, K_UNREADABLE, LAST_PARITY, MAGIC,
    META, META_MAX, PAGE, PIECE, SECTIONS, TAIL, TAIL_PARITY, Damage, Entry, Problem, Refused, attempt, decode, differ,
    entries_of, frame_at, items, keyed_hash, levels, need, nodes, page_at, round_up, state_root, superblock, trailer,
    unpack)
from aivkeys import AREA, Ring, Seal, derive, key_area
from aivsegments import stream_of

# Leaves of a whole state are held in memory here, so this program stops long before the format does.
BLOCKS_MAX = 1 << 26


class Image:
    """An image that is finished and whose tail fits its length. `found` lists damage that did not stop it."""

    def __init__(self, path, ring=None, stream=None, given=()):
        self.path, self.found = path, []
        self.stream = stream or stream_of(path, given)
        self.superblock = s = self.open_superblock()
        self.trailer = t = self.open_trailer()
        self.check_areas()
        self.slots = self.open_slots()
        key = (ring or Ring()).key_for(s, [copy for copy in self.slots if not isinstance(copy, Damage)])
        self.seal, self.locked = Seal(s, key, t.session_tag), s.sealed and key is None
        for copy in self.counting if key else ():
            need(copy.mac == derive(key, "trailer mac", copy.covered + self.stream.read(self.first, PAGE)),
                 f"superblock or trailer {copy.copy}: forged or damaged")
        need(s.sealed or t.state_root == state_root(s, t.content_root, t.map_root),
             "trailer: state_root is not of its parts", self.stream.length - PAGE)
        self.meta = None if self.locked else attempt(self.open_meta)
        if isinstance(self.meta, Damage):
            self.found.append(self.meta)
            self.meta = None
        self.entries = self.firsts = None
        self.uniform = {}

    # ---- opening, steps 1 to 7

    def open_superblock(self):
        n, read, self.first = self.stream.length, self.stream.read, 0  # where the superblock is that counts
        if n < PAGE:
            raise Refused(f"not an image: {n} bytes")
        first = attempt(lambda: superblock(read(0, PAGE), 0))
        if isinstance(first, Damage) and n >= PAGE + TAIL:
            self.found.append(first)
            copy = attempt(superblock, read(n - 2 * PAGE, PAGE), n - 2 * PAGE)
            if not isinstance(copy, Damage):
                first, self.first = copy, n - 2 * PAGE
            elif MAGIC not in (read(0, 8), read(n - 2 * PAGE, 8)) and not self.some_trailer():
                raise Refused("not an image: no superblock")
        elif isinstance(first, Damage) and read(0, 8) != MAGIC:
            raise Refused("not an image: no superblock")
        if isinstance(first, Problem):
            raise first
        return first

    def some_trailer(self):
        places = (1, TAIL), (1, TAIL_PARITY), (2, PAGE)
        return any(not isinstance(self.one_trailer(copy, tail, None), Damage) for copy, tail in places)

    def one_trailer(self, copy, tail, sb):
        n = self.stream.length
        return attempt(lambda at: trailer(self.stream.read(at, PAGE), copy, sb, n, at), n - tail)

    def open_trailer(self):
        n, read, places = self.stream.length, self.stream.read, ((1, self.superblock.tail), (2, PAGE))
        if n < PAGE + self.superblock.tail:
            raise Refused("unfinished: no room for a trailer")
        both = [self.one_trailer(copy, tail, self.superblock) for copy, tail in places]
        self.counting = [t for t in both if not isinstance(t, Damage)]
        if not self.counting:
            for copy, tail in places:
                start = read(n - tail, 16)
                if start[:8] == b"AIVTRAIL" and start[12] == copy:
                    raise both[copy - 1]
            raise Refused("unfinished, or cut off: no trailer")
        self.found += [t for t in both if isinstance(t, Damage)]
        if len(self.counting) == 2 and differ(*both, "copy hash crc"):
            self.found.append(Damage("the two trailers differ", n - self.superblock.tail))
        return self.counting[-1]

    def open_slots(self):
        """Both copies of the key slots, or what is wrong with them."""
        places = (PAGE, self.stream.length - self.superblock.tail + PAGE) if self.superblock.slot_area_len else ()
        commitment = self.superblock.key_commitment
        return [attempt(lambda at: key_area(self.stream.read(at, AREA), commitment, at), at) for at in places]

    def check_areas(self):
        t, s, at = self.trailer, self.superblock, self.stream.length - PAGE
        counts = levels(min(t.index_leaf_pages, t.file_len // PAGE))
        need(t.frames_end >= PAGE + s.slot_area_len and t.frames_end % PAGE == 0, "trailer: a bad frames_end", at)
        need(t.index_offset == t.frames_end and t.index_leaf_pages <= t.index_pages == sum(counts) and len(counts) <= 8
             and t.tree_offset == t.index_offset + PAGE * t.index_pages
             and t.meta_offset == t.tree_offset + PAGE * t.tree_pages and t.meta_len <= META_MAX
             and t.stored_offset == round_up(t.meta_offset + t.meta_len, PAGE)
             and t.stored_pieces == -(-t.stored_offset // PIECE), "trailer: areas do not fit together", at)
        need(t.parity_offset == round_up(t.stored_offset + 32 * t.stored_pieces, PAGE) < t.file_len
             and t.parity_len == sum(PAGE * (2 * -(-(n + 4 * k) // 252) + 4 * k) for n, k in self.parity_groups())
             and t.file_len == t.parity_offset + t.parity_len + s.tail, "trailer: areas do not end with the file", at)
        last = t.frames_end - LAST_PARITY
        need(not s.incompat & BIT_PARITY or last > 0 and last % PIECE == 0, "trailer: no place for parity", at)
        need(t.segment_count == len(getattr(self.stream, "segments", "")), "trailer: number of segments", at)
        need(PAGE <= t.last_checkpoint < t.frames_end and t.last_checkpoint % 64 == 0, "trailer: last_checkpoint", at)
        need(t.index_pages or s.has_parent and not any(t.index_root), "trailer: no index", at)
        if s.blocks > BLOCKS_MAX:
            raise Refused(f"{s.blocks} blocks are more than this program holds in memory")

    def parity_groups(self):
        """Pages and stripes of each group of the parity area [7]."""
        pages = 1 + (self.trailer.parity_offset - self.trailer.index_offset) // PAGE
        groups = -(-pages // 512)
        sizes = [pages // groups + (i < pages % groups) for i in range(groups)]
        return [(n, max(-(-n // 16), 13 if self.superblock.incompat & BIT_PARITY else 0)) for n in sizes]

    def open_meta(self):
        t, out, at, count = self.trailer, {}, self.trailer.meta_offset, 0
        end = at + t.meta_len
        need(t.meta_hash == keyed_hash("section", self.stream.read(at, t.meta_len)), "META: hash is wrong", at)
        while at < end:
            frame = frame_at(self.stream, at, end, self.seal)
            need(frame.kind == META, "META: a frame of another type", at)
            count += 1
            need(count <= 256, "META: too many sections", at)
            if frame.subject in SECTIONS:
                name, table = SECTIONS[frame.subject]
                need(name not in out, f"META: section {name} occurs twice", at)
                out[name] = items(decode(frame, frame.data), table, at)
            at += frame.size
        check_meta(out, self.superblock, t.meta_offset)
        if self.seal.sealed:
            roots = [out["roots"][name] for name in ("content", "map", "state")]
            need(roots[2] == state_root(self.superblock, *roots[:2]) and [*map(self.seal.shown, roots)]
                 == [t.content_root, t.map_root, t.state_root], "META: roots that the trailer does not show", end)
        return out

    # ---- index

    def load_index(self):
        """Every page from the root down, each proven by its parent; then the order of all entries."""
        t, s = self.trailer, self.superblock
        expected, page_no = [(t.index_root, None)], t.index_pages
        counts = levels(t.index_leaf_pages)
        entries = []
        for level in reversed(range(len(counts))):
            page_no -= counts[level]
            children, last = [], -1
            for i, (page_hash, first) in enumerate(expected):
                at = t.index_offset + PAGE * (page_no + i)
                page = page_at(self.stream, at, 1, page_no + i, level, s.image_uuid, self.seal)
                need(page_hash == keyed_hash("page", page.data), "index: hash of the page is wrong", at)
                need(first in (None, page.first), "index: first block", at)
                if level == 0:
                    entries += entries_of(page.entries, s, t.frames_end, at)
                    continue
                need(page.count == min(84, counts[level - 1] - 84 * i), "index: children of an inner page", at)
                for block, reserved, child in struct.iter_unpack("<QQ32s", page.entries):
                    need(block > last and reserved == 0, "index: entries of an inner page", at)
                    children.append((child, block))
                    last = block
            expected = children
        end = 0
        for e in entries:
            need(e.first >= end if s.has_parent else e.first == end, f"index: gap or overlap at block {e.first}",
                 t.index_offset)
            end = e.end
        need(s.has_parent or end == s.blocks, "index: the last block has no entry", t.index_offset)
        self.entries, self.firsts = entries, [e.first for e in entries]

    def entry_of(self, block):
        """The entry that covers a block; None when the block is inherited."""
        i = bisect.bisect_right(self.firsts, block) - 1
        return self.entries[i] if i >= 0 and block < self.entries[i].end else None

    # ---- blocks

    def block_len(self, block):
        s = self.superblock
        return min(s.block_size, s.address_space_len - block * s.block_size)

    def plain(self, kind, length):
        """Bytes and leaf of a block that no frame holds."""
        key = (kind == K_UNREADABLE, length)
        if key not in self.uniform:
            data = (FILL * (length // 16 + 1))[:length] if key[0] else bytes(length)
            self.uniform[key] = data, keyed_hash("leaf", data)
        return self.uniform[key]

    def frame_of(self, entry):
        """The frame of an entry and its payload as stored, compared with the entry."""
        f = frame_at(self.stream, entry.address, self.trailer.frames_end, self.seal)
        name = f"frame of block {entry.first}"
        need(f.size == entry.size or f.size > entry.size == 0xFFFF * 64, f"{name}: another size", f.at)
        need(f.kind == (DELTA if entry.kind == K_DELTA else DATA), f"{name}: another type", f.at)
        need(entry.kind == K_REF or f.subject == entry.first, f"{name}: of block {f.subject}", f.at)
        need(entry.kind == K_REF or (f.flags == 1) == (entry.kind == K_UNREADABLE), f"{name}: damaged flag", f.at)
        need(f.plain_len == self.block_len(entry.first), f"{name}: of another length", f.at)
        need(f.leaf_prefix == entry.leaf[:8], f"{name}: of another leaf", f.at)
        return f


def delta_head(frame):
    need(len(frame.data) >= 48, "DELTA: shorter than its head", frame.at)
    head = unpack(DELTA_HEAD, frame.data[:48])
    need(head.clean and 1 <= head.depth <= 8, "DELTA: a bad head", frame.at)
    return head


def check_meta(meta, sb, at):
    """The rules of section 8 that join several items."""
    for name in ("manifest", "disk", "origins"):
        need(name in meta, f"META: section {name} is missing", at)
    need(("roots" in meta) == bool(sb.sealed), "META: roots are for sealed images, and must be there", at)
    m, d = meta["manifest"], meta["disk"]
    need(m["consistency"] in (1, 2, 3) and m["capture"] in (1, 2) and m["full"] >= 1, "META: a bad manifest", at)
    need(max(m["full"], m["increment"], d["physical_sector"]) < 1 << 32, "META: a number of 2^32 or more", at)
    need(d["length"] == sb.address_space_len and d["sector"] == sb.sector_size, "META: another size of the disk", at)
    need(d["table"] in ("gpt", "mbr", "none") and 1 <= len(d["regions"]) <= 8192, "META: a bad disk", at)
    end = 0
    for region in d["regions"]:
        need(region["start"] == end and region["length"] and 1 <= region["kind"] <= 4, "META: a bad region", at)
        need(region["kind"] == 4 or not (region["entry"] or region["volume"]), "META: volume or entry in a gap", at)
        for name, part in (("number", region["entry"]), ("cluster", region["volume"])):
            need(not part or part[name] < 1 << 32, f"META: {name} of 2^32 or more", at)
        need(not region["volume"] or region["volume"]["capture"] in (1, 2), "META: a bad capture", at)
        end += region["length"]
    need(end == sb.address_space_len, "META: the regions do not end with the disk", at)
    need(1 <= len(meta["origins"]["sessions"]) <= 16384, "META: number of origins", at)
    files = meta.get("excluded_files", {}).get("files", [])
    for ranges in [meta.get("source_errors", {}).get("ranges", [])] + [f["ranges"] for f in files]:
        ends = 0
        for start, length in (struct.unpack("<QQ", r) for r in ranges):
            need(start >= ends and length and start + length <= sb.address_space_len, "META: a bad range", at)
            ends = start + length
    need(not files or len(files) <= min(65536, meta["excluded_files"]["count"]), "META: number of excluded files", at)
    for section, name, most in (("inventory", "facts", 65536), ("disk", "table_problems", 65536),
                                ("excluded_files", "patterns", 65536), ("trackers", "trackers", 64)):
        need(len(meta.get(section, {}).get(name, [])) <= most, f"META: more than {most} {name}", at)
    for tracker in meta.get("trackers", {}).get("trackers", []):
        places = tracker["places"]
        need(len(places) <= 64 and sorted({*places}) == places, "META: places of a tracker", at)


class Chain:
    """An image and those it builds on, newest first, up to a full image; or one image alone."""

    def __init__(self, images):
        self.images = images
        self.whole = not images[-1].superblock.has_parent

    @staticmethod
    def of(image, others):
        """The chain of `image` through `others`, in whatever order they are; alone when there are none."""
        if not others or not image.superblock.has_parent:
            return Chain([image])
        whole = {}  # (point, state_root) of every image whose chain is whole, to its chain
        waiting = [image, *others]
        while True:
            ready = [i for i in waiting if not i.superblock.has_parent
                     or (i.superblock.parent_point, i.superblock.parent_state_root) in whole]
            if not ready:
                raise Damage(f"{image.path}: no whole chain among the files given")
            for i in ready:
                s = i.superblock
                chain = [i] + whole.get((s.parent_point, s.parent_state_root), []) if s.has_parent else [i]
                waiting.remove(i)
                if i is image:
                    return Chain.checked(chain)
                whole.setdefault((s.recovery_point, i.trailer.state_root), chain)

    @staticmethod
    def checked(chain):
        need(len(chain) <= 10000, "chain: more than 10,000 images")
        need(len({i.superblock.recovery_point for i in chain}) == len(chain), "chain: it holds a point twice")
        for i in chain[1:]:
            for name in ("set_uuid", "block_size", "sector_size", "key_commitment", "keyed"):
                need(getattr(i.superblock, name) == getattr(chain[0].superblock, name), f"chain: {name} of {i.path}")
        return Chain(chain)

    def load(self):
        for image in self.images:
            if image.entries is None:
                image.load_index()

    def states(self):
        """From the oldest image to the newest: its place in the chain and the segments of its state."""
        segments = []
        for level in reversed(range(len(self.images))):
            segments = self.overlay(level, segments)
            yield level, segments

    def overlay(self, level, older):
        """Pairs (entry, owner) that cover a state without gap: what an image decides, and what it inherits."""
        image, out, block, i = self.images[level], [], 0, 0
        for e in image.entries + [Entry(image.superblock.blocks, 0, 0, 0, b"")]:
            while block < e.first:  # inherited
                name = f"{image.path}: block {block} is inherited"
                while i < len(older) and older[i][0].end <= block:
                    i += 1
                need(i < len(older), f"{name}, the parent has none")
                from_parent, owner = older[i]
                end = min(e.first, from_parent.end)
                need(from_parent.kind != K_UNREADABLE, f"{name} with unreadable places")
                need(image.block_len(end - 1) == self.images[level + 1].block_len(end - 1), f"{name} in another length")
                rest = from_parent.kind, from_parent.place, from_parent.leaf
                out.append((Entry(block, end - block, *rest), owner))
                block = end
            if e.run:
                out.append((e, level))
                block = e.end
        return out

    def locate(self, level, block):
        """Where the state of the image at `level` has a block: its entry and the place of the image with it."""
        while level < len(self.images):
            need(block < self.images[level].superblock.blocks, f"the state has no block {block}")
            entry = self.images[level].entry_of(block)
            if entry:
                return entry, level
            level += 1
        raise Damage(f"block {block} is in a parent that is not there")

    def leaf(self, entry, level, block):
        return entry.leaf if entry.framed or entry.kind == K_PARENT else self.plain(entry, level, block)[1]

    def plain(self, entry, level, block):
        return self.images[level].plain(entry.kind, self.images[level].block_len(block))

    def parents_block(self, level, block, other):
        """Block `other` of the parent's state, which must be as long as `block` of the image at `level`."""
        found = self.locate(level + 1, other)
        lengths = self.images[level].block_len(block), self.images[level + 1].block_len(other)
        need(lengths[0] == lengths[1], f"block {block} is made from a block of another length")
        return found

    def read(self, level, block, differences=0):
        """The bytes of a block of the state of the image at `level`, proven by its leaf."""
        entry, level = self.locate(level, block)
        wanted = self.leaf(entry, level, block)
        while entry.kind == K_PARENT:
            other = entry.place
            entry, owner = self.parents_block(level, block, other)
            need(self.leaf(entry, owner, other) == wanted, f"block {block}: the parent's block has another leaf")
            block, level = other, owner
        if not entry.framed:
            return self.plain(entry, level, block)[0]
        frame = self.images[level].frame_of(entry)
        if frame.kind == DELTA:
            head = delta_head(frame)
            need(differences < 8, f"block {block} is more than 8 differences deep", frame.at)
            base, owner = self.parents_block(level, block, head.base_block)
            need(self.leaf(base, owner, head.base_block) == head.base_leaf, "DELTA: base_leaf is another", frame.at)
            data = decode(frame, frame.data[48:], self.read(level + 1, head.base_block, differences + 1))
        else:
            data = decode(frame, frame.data)
        need(keyed_hash("leaf", data) == wanted, f"block {block}: its bytes have another leaf", frame.at)
        return data

    def trees(self, segments, level):
        """Leaves and conditions of all blocks of a state, as the nodes of level 1 of its content and map tree."""
        leaves, conditions, image = [], [], self.images[level]
        for entry, owner in segments:
            short = image.block_len(entry.end - 1) != image.superblock.block_size  # the last block alone has its leaf
            leaves.append(self.leaf(entry, owner, entry.first) * (entry.run - short))
            if short:
                leaves.append(self.leaf(entry, owner, entry.end - 1))
            conditions.append(bytes([CONDITION.get(entry.kind, 0)]) * entry.run)
        return nodes("content", b"".join(leaves), 32, 1), nodes("map", b"".join(conditions), 1, 1)
