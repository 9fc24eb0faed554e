"""Everything that can be proven of an image: docs/format.md, section 11, both depths in one."""

import itertools
import struct
from collections import Counter, defaultdict

from aivformat import (
    BLOCKS, CHECKPOINT_HEAD, PAGE, PIECE, TAIL, TRAILER, TREE_NODE, Problem, attempt, entries_of, frames, keyed_hash, need,
    nodes, rules, tree_root)
from aivimage import delta_head
from aivkeys import AREA_HEAD, derive
from aivparity import area_of, check_stripes

def verify(image):
    """What is wrong with an image, as a list; its roots and differences need the images it builds on."""
    found = image.found + [area for area in image.slots if not area]

    def check(function, *arguments):
        result = attempt(function, image, *arguments)
        found.extend([result] * isinstance(result, Problem))
        return result
    kept = check(check_frames)
    for part in (check_tail, check_parity, check_segments, check_list):
        check(part)
    for piece in range(image.trailer.stored_pieces):
        check(check_piece, piece)
    if isinstance(check(lambda image: [one.entries for one in image.line()]), Problem):
        return found
    for part in (tree_pages,) if image.seal.locked else (check_counts, check_trees):
        check(part)
    if kept and not image.seal.locked:
        check(check_checkpoints, kept["CHECKPOINT"])
    for entry in image.entries:
        check(check_block, entry)
    return found

def check_frames(image):
    """Every frame of both areas, in order and without a byte between them; those that are looked at again, by type."""
    t, s, kept, count, stored = image.trailer, image.superblock, defaultdict(list), 0, 0
    sessions, meta_end = image.meta and image.meta["origins"]["sessions"], t.meta_offset + t.meta_len
    areas = (PAGE + s.slot_area_len, t.frames_end), (t.meta_offset, t.stored_offset)
    for count, f in enumerate(itertools.chain(*(frames(image.stream, *area, image.seal) for area in areas)), 1):
        rules("frame", f.at, type=(t.meta_offset <= f.at < meta_end) == (f.type == "META")
              and (f.type == "PAD" or f.at < meta_end) and (f.type != "PARITY" or "parity" in s.features),
              data=f.type != "PAD" or not any(f.data), session_tag=not sessions or f.session_tag in sessions)
        stored += f.stored_len * (f.type in BLOCKS)
        if f.type in ("CHECKPOINT", "PARITY", "META"):
            kept[f.type].append(f)
    TRAILER.same(t, image.stream.length - PAGE, frames=count, payload_bytes=stored)
    rules("META", t.meta_offset, frames=kept["META"], origins=not sessions or s.session_tag in sessions)
    check_stripes(image, kept["PARITY"], kept["META"][0])
    return kept

def check_tail(image):
    s, read, copy = image.superblock, image.stream.read, image.stream.length - 2 * PAGE
    gap, key = copy + 2 * PAGE - s.tail + PAGE + s.slot_area_len, image.seal.key
    rules("tail", gap, gap=not any(read(gap, copy - gap)), superblock=read(0, PAGE) == read(copy, PAGE))
    rules("key slots", PAGE, mac=not key or all(
        derive(key, "slot area mac", AREA_HEAD.covered("mac", area.data)) == area.mac for area in image.slots if area))

def check_parity(image):
    t = image.trailer
    stored = image.stream.read(t.parity_offset, t.parity_len)
    rules("parity area", t.parity_offset, hash=keyed_hash("section", stored) == t.parity_hash)
    need(stored == area_of(image), "parity area: not what its pages give", t.parity_offset)

def check_segments(image):
    """Each segment by itself, and against the image."""
    for s in image.stream.segments:
        read, n, name, end = s.stream.read, s.stream.length, s.stream.path, s.at + s.length
        need(not s.found, f"{name}: {s.found and s.found[0]}")
        own = s.start.to_bytes(8, "little"), s.number.to_bytes(4, "little")
        first, at = image.superblock.data, {"segment_no": 148, "segment_start": 1824}
        expected = first[:148] + own[1] + first[152:1824] + own[0] + first[1832:4092]
        need(read(0, 4092) == expected, f"{name}: another superblock", 0)
        if s.trailer:
            gap, listed = n - TAIL + PAGE, read(end, n - TAIL - end)
            hashes = image.stream.read(image.trailer.stored_offset + 32 * s.start // PIECE, 32 * s.trailer.pieces)
            rules(name, end, list=listed == hashes.ljust(len(listed), b"\0"), gap=not any(read(gap, TAIL - 3 * PAGE)),
                  stored_root=tree_root("stored", nodes("stored", hashes)) == s.trailer.stored_root,
                  superblock=read(0, PAGE) == read(n - 2 * PAGE, PAGE))

def check_list(image):
    t = image.trailer
    stored = image.stream.read(t.stored_offset, t.parity_offset - t.stored_offset)
    root = tree_root("stored", nodes("stored", stored[:32 * t.stored_pieces]))
    rules("stored list", t.stored_offset, root=root == t.stored_root, padding=not any(stored[32 * t.stored_pieces:]))

def check_piece(image, i):
    t, s, read = image.trailer, image.superblock, image.stream.read
    piece = read(i * PIECE, min(PIECE, t.stored_offset - i * PIECE))
    if i == 0:  # the key slots count as zeros
        piece = piece[:PAGE] + bytes(s.slot_area_len) + piece[PAGE + s.slot_area_len:]
    need(keyed_hash("piece", piece) == read(t.stored_offset + 32 * i, 32),
         f"piece {i} is not what the stored list says", i * PIECE)

def check_counts(image):
    t, s, counts = image.trailer, image.superblock, Counter()
    errors = image.meta and image.meta.get("source_errors", {"ranges": []})["ranges"]
    touched = bytearray(s.blocks)
    for start, length in map(struct.Struct("<QQ").unpack, errors or ()):
        first, last = start // s.block_size, (start + length - 1) // s.block_size
        touched[first:last + 1] = b"\1" * (last + 1 - first)
    for e in image.entries:
        counts["blocks_" + e.kind.lower()] += e.run
        need(errors is None or e.kind != "UNREADABLE" or all(touched[e.first:e.end]),
             f"META: no source error touches block {e.first}, or one behind it")
    TRAILER.same(t, image.stream.length - PAGE, **{n: counts[n] for n in TRAILER.names if n.startswith("blocks_")})

def check_checkpoints(image, checkpoints):
    """They are the index once more, and the stored list."""
    t, s, entries, next_block, pieces, previous, sessions = image.trailer, image.superblock, [], 0, 0, 0, set()
    for number, f in enumerate(checkpoints):
        need(len(f.data) >= 64, "checkpoint: shorter than its head", f.at)
        h, new = CHECKPOINT_HEAD.read(f.data, f.at), f.at // PIECE - pieces
        CHECKPOINT_HEAD.same(h, f.at, number=number, previous_address=previous, first_piece=pieces, piece_count=new)
        a, b = 64 + 16 * h.origin_count, 64 + 16 * h.origin_count + 32 * new
        origins = {f.data[i:i + 16] for i in range(64, a, 16)}
        rules("checkpoint", f.at, piece_count=new <= 1 << 18, entry_count=h.entry_count <= 65536, subject=f.subject == number,
              origin_count=1 <= h.origin_count <= 16384, length=len(f.data) == b + 48 * h.entry_count,
              pieces=f.data[a:b] == image.stream.read(t.stored_offset + 32 * pieces, 32 * new),
              origins=sessions | {f.session_tag + bytes(4)} <= origins and not any(any(o[12:]) for o in origins))
        listed = entries_of(f.data[b:], s, t.frames_end, f.at)
        rules("checkpoint", f.at, next_block=next_block <= h.next_block <= s.blocks, entries=not listed
              or next_block <= listed[0].first and listed[-1].end <= h.next_block)
        entries, next_block, pieces, previous, sessions = entries + listed, h.next_block, f.at // PIECE, f.at, origins
    rules("checkpoints", t.last_checkpoint, last=checkpoints and previous == t.last_checkpoint, end=next_block == s.blocks,
          entries=all(a == b for a, b in itertools.zip_longest(one_by_one(entries), one_by_one(image.entries))))

def one_by_one(entries):
    """Every block, so that it does not matter how runs were cut."""
    return ((block, e.kind, e.place, e.leaf) for e in entries for block in range(e.first, e.end))

def check_trees(image):
    """Roots of every state of a chain, and the tree pages of its newest image."""
    listed, older = tree_pages(image), image.parent and image.parent.superblock
    if not image.whole:
        rules("tree pages", image.trailer.tree_offset, groups=touched(image, None) <= {group for group, *_ in listed})
        return
    for one, state in image.states():
        content, states = trees(state)
        TRAILER.same(one.trailer, one.stream.length - PAGE, map_root=one.seal.shown(tree_root("map", states)),
                     content_root=one.seal.shown(tree_root("content", content)))
    places = [(group, slice(32 * group, 32 * group + 32)) for group in sorted(touched(image, older))]
    expected = [(group, bytes(8), content[place], states[place]) for group, place in places]
    rules("tree pages", image.trailer.tree_offset, nodes=listed == expected)

def trees(state):
    """The nodes of level 1 of the content and of the map tree of a state."""
    leaves = b"".join(image.leaf(entry, block) for block, (entry, image) in enumerate(state))
    return nodes("content", leaves), nodes("map", bytes(entry.condition for entry, _ in state), 1)

def tree_pages(image):
    """The nodes that are listed."""
    t = image.trailer
    pages = [image.page(2, number) for number in range(t.tree_pages)]
    listed = [*TREE_NODE.form.iter_unpack(b"".join(page.entries or b"" for page in pages))]
    groups = [group for group, *_ in listed]
    rules("tree pages", t.tree_offset, hash=keyed_hash("section", b"".join(page.data for page in pages)) == t.tree_hash,
          count=all(page.count == 50 for page in pages[:-1]), reserved=not any(any(zero) for _, zero, *_ in listed),
          order=groups == sorted({*groups}), end=not groups or groups[-1] <= (image.superblock.blocks - 1) // 128)
    return listed

def touched(image, older):
    """Groups that have a node: decided in part or grown or shrunk, and not wholly of entries without a leaf."""
    s, cheap, groups = image.superblock, Counter(), set()
    for e in image.entries:
        for group in range(e.first // 128, (e.end - 1) // 128 + 1):
            groups.add(group)
            cheap[group] += (min(e.end, 128 * group + 128) - max(e.first, 128 * group)) * (not e.hashed)
    if older and older.address_space_len != s.address_space_len:  # the first group that is not as it was
        groups.add(min(older.address_space_len, s.address_space_len) // (128 * s.block_size))
    return {group for group in groups if cheap[group] < min(128, s.blocks - 128 * group)}  # none behind the end

def check_block(image, entry):
    """A block with a frame, decoded; one that is a copy, followed."""
    if entry.kind == "DELTA" and not image.whole:
        delta_head(image.frame_of(entry))
    elif entry.hashed and (entry.kind != "PARENT" or image.whole):
        image.read(entry.first)
