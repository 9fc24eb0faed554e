"""Everything that can be proven of an image: docs/format.md, section 11, both depths in one."""

import struct

from aivformat import (
    BIT_PARITY, CHECKPOINT, CHECKPOINT_HEAD, DATA, DELTA, K_DELTA, K_PARENT, KIND_NAMES, META, PAD, PAGE, PARITY,
    PIECE, Damage, Problem, attempt, entries_of, frame_at, keyed_hash, levels, need, nodes, page_at,
    tree_root, unpack)
from aivimage import delta_head
from aivkeys import derive
from aivparity import area_of, check_stripes
from aivsegments import check_segments


def verify(chain):
    """What is wrong with the first image of a chain, as a list; its roots need all others, too."""
    image = chain.images[0]
    found = image.found + [slots for slots in image.slots if isinstance(slots, Problem)]

    def check(function, *arguments):
        result = attempt(function, *arguments)
        if isinstance(result, Problem):
            found.append(result)
        return result

    frames = check(check_frames, image)
    for function in (check_tail, check_parity, check_segments, check_slots):
        check(function, image)
    check(check_stored, image, found)
    if image.locked:
        check(check_locked_pages, image)
    elif not isinstance(check(chain.load), Problem):
        check(check_counts, image)
        if not isinstance(frames, Problem):
            check(check_checkpoints, image, frames)
        check(check_trees, chain)
        for entry in image.entries:
            check(check_block, chain, entry)
    return found


def check_frames(image):
    """Every frame of both areas, in order and without a byte between them. Returns the checkpoints."""
    t, kept = image.trailer, {CHECKPOINT: [], PARITY: [], META: []}
    sessions = image.meta and set(image.meta["origins"]["sessions"])
    count, stored = 0, 0
    for at, end in ((PAGE + image.superblock.slot_area_len, t.frames_end), (t.meta_offset, t.stored_offset)):
        while at < end:
            f = frame_at(image.stream, at, end, image.seal)
            inside_meta = t.meta_offset <= at < t.meta_offset + t.meta_len
            need(inside_meta == (f.kind == META) and (f.kind == PAD or at < t.meta_offset + t.meta_len)
                 and (f.kind != PARITY or image.superblock.incompat & BIT_PARITY),
                 "frame: of a type that does not belong here", at)
            need(f.kind != PAD or not any(f.data), "PAD: not zeros", at)
            need(sessions is None or f.session_tag in sessions, "frame: of a session that origins do not name", at)
            if f.kind in kept:
                kept[f.kind].append(f)
            stored += f.stored_len * (f.kind in (DATA, DELTA))
            count, at = count + 1, at + f.size
    need(t.frames == count and t.payload_bytes == stored, "trailer: number of frames or their bytes",
         image.stream.length - PAGE)
    need(sessions is None or image.superblock.session_tag in sessions, "META: origins without the image's session")
    need(kept[META], "META: no frame", t.meta_offset)
    check_stripes(image, kept[PARITY], kept[META][0])
    return kept[CHECKPOINT]


def check_tail(image):
    read, at, copy = image.stream.read, image.stream.length - image.superblock.tail, image.stream.length - 2 * PAGE
    at += image.superblock.slot_area_len
    need(not any(read(at + PAGE, copy - at - PAGE)), "the gap is not zero", at + PAGE)
    need(read(0, PAGE) == read(copy, PAGE), "the two superblocks differ", copy)


def check_parity(image):
    t = image.trailer
    stored = image.stream.read(t.parity_offset, t.parity_len)
    need(keyed_hash("section", stored) == t.parity_hash, "parity area: another hash", t.parity_offset)
    need(stored == area_of(image), "parity area: not what its pages give", t.parity_offset)


def check_stored(image, found):
    t, read, slots = image.trailer, image.stream.read, image.superblock.slot_area_len
    listed = read(t.stored_offset, t.parity_offset - t.stored_offset)
    listed, padding = listed[:32 * t.stored_pieces], listed[32 * t.stored_pieces:]
    need(not any(padding), "stored list: padding is not zero", t.stored_offset)
    for i in range(t.stored_pieces):
        piece = read(i * PIECE, min(PIECE, t.stored_offset - i * PIECE))
        if i == 0:  # the key slots count as zeros
            piece = piece[:PAGE] + bytes(slots) + piece[PAGE + slots:]
        if keyed_hash("piece", piece) != listed[32 * i:32 * i + 32]:
            found.append(Damage(f"piece {i} is not what the stored list says", i * PIECE))
    root = tree_root("stored", nodes("stored", listed, 32, 1))
    need(root == t.stored_root, "stored list: another root", t.stored_offset)


def check_slots(image):
    """With the key, nobody without it changed them."""
    for slots in image.slots if image.seal.key else ():
        need(isinstance(slots, Problem) or slots.mac == derive(image.seal.key, "slot area mac", slots.covered),
             "key slots: forged")


def check_locked_pages(image):
    """Of pages without the key: each is in its place, and the root and the tree are the ones."""
    t, s, number = image.trailer, image.superblock, 0
    for level, count in enumerate(levels(t.index_leaf_pages)):
        for number in range(number, number + count):
            page = page_at(image.stream, t.index_offset + PAGE * number, 1, number, level, s.image_uuid, image.seal)
        number += 1
    need(not number or keyed_hash("page", page.data) == t.index_root, "index: hash of the root", t.index_offset)
    check_tree_pages(image)


def check_counts(image):
    t, s, at = image.trailer, image.superblock, image.stream.length - PAGE
    counts = [0] * len(KIND_NAMES)
    for e in image.entries:
        counts[e.kind] += e.run
    for kind, name in list(enumerate(KIND_NAMES))[1:-1]:
        need(getattr(t, "blocks_" + name.lower()) == counts[kind], f"trailer: number of blocks {name}", at)
    if image.meta is None:
        return
    ranges = [struct.unpack("<QQ", r) for r in image.meta.get("source_errors", {}).get("ranges", [])]
    ranges = [(a // s.block_size, (a + n - 1) // s.block_size) for a, n in ranges]
    unreadable = [(e.first, e.end) for e in image.entries if KIND_NAMES[e.kind] == "UNREADABLE"]
    i = 0
    for block, end in unreadable:
        while block < end:  # every block is touched by some range
            while i < len(ranges) and ranges[i][1] < block:
                i += 1
            need(i < len(ranges) and ranges[i][0] <= block, f"META: no source error touches block {block}")
            block = ranges[i][1] + 1


def check_checkpoints(image, frames):
    """They are the index once more, and the stored list."""
    t, s = image.trailer, image.superblock
    listed = image.stream.read(t.stored_offset, 32 * t.stored_pieces)
    entries, next_block, pieces, previous, sessions = [], 0, 0, 0, set()
    for number, f in enumerate(frames):
        data = f.data
        need(len(data) >= 64, "checkpoint: shorter than its head", f.at)
        h = unpack(CHECKPOINT_HEAD, data[:64])
        a = 64 + 16 * h.origin_count
        b = a + 32 * h.piece_count
        need(h.clean and h.piece_count <= 1 << 18 and h.entry_count <= 65536 and 1 <= h.origin_count <= 16384
             and len(data) == b + 48 * h.entry_count, "checkpoint: a bad head", f.at)
        need((h.number, f.subject, h.previous_address) == (number, number, previous), "checkpoint: its number", f.at)
        need(h.first_piece == pieces and pieces + h.piece_count == f.at // PIECE, "checkpoint: pieces skipped", f.at)
        need(data[a:b] == listed[32 * pieces:32 * (pieces + h.piece_count)], "checkpoint: other piece hashes", f.at)
        origins = {data[i:i + 16] for i in range(64, a, 16)}
        need(sessions | {f.session_tag + bytes(4)} <= origins and not any(any(o[12:]) for o in origins),
             "checkpoint: its origins", f.at)
        new = entries_of(data[b:], s, t.frames_end, f.at)
        need(not new or new[0].first >= next_block and new[-1].end <= h.next_block, "checkpoint: its blocks", f.at)
        need(next_block <= h.next_block <= s.blocks, "checkpoint: next_block", f.at)
        entries, next_block, pieces = entries + new, h.next_block, pieces + h.piece_count
        previous, sessions = f.at, origins
    need(frames and previous == t.last_checkpoint and next_block == s.blocks, "checkpoints: the last is missing",
         t.last_checkpoint)
    need(joined(entries) == joined(image.entries), "checkpoints: other entries than the index", t.last_checkpoint)


def joined(entries):
    """Runs that touch as one, however they were cut."""
    out = []
    for e in entries:
        place = (e.kind, e.place, e.leaf)
        if out and not (e.framed or e.kind == K_PARENT) and out[-1][1:] == (e.first, place):
            out[-1] = (out[-1][0], e.end, place)
        else:
            out.append((e.first, e.end, place))
    return out


def check_trees(chain):
    """Roots of every state of a chain, and the tree pages of its first image."""
    image = chain.images[0]
    if not chain.whole:
        listed = check_tree_pages(image)
        need(touched(image, None) <= listed.keys(), "tree pages: a group is missing", image.trailer.tree_offset)
        return
    for level, segments in chain.states():
        one = chain.images[level]
        content, states = chain.trees(segments, level)
        check_roots(chain, level, content, states)
    listed, older = check_tree_pages(image), chain.images[1].superblock if len(chain.images) > 1 else None
    need(touched(image, older) == listed.keys(), "tree pages: other groups than the index", image.trailer.tree_offset)
    for group, (at, hashes) in listed.items():
        part = slice(32 * group, 32 * group + 32)
        need(hashes == content[part] + states[part], f"tree pages: other nodes of group {group}", at)


def check_roots(chain, level, content, states):
    """The roots of one state against its trailer, and against the link of the image that builds on it."""
    t, name, shown = chain.images[level].trailer, chain.images[level].path, chain.images[level].seal.shown
    at = chain.images[level].stream.length - PAGE
    need(shown(tree_root("content", content)) == t.content_root, f"{name}: another content_root", at)
    need(shown(tree_root("map", states)) == t.map_root, f"{name}: another map_root", at)
    if level:
        link = chain.images[level - 1].superblock
        need((t.recovery_point, t.state_root) == (link.parent_point, link.parent_state_root), f"{name}: no parent")


def check_tree_pages(image):
    """The nodes by group, with the place of their page."""
    t, out, last = image.trailer, {}, -1
    pages = image.stream.read(t.tree_offset, PAGE * t.tree_pages)
    need(keyed_hash("section", pages) == t.tree_hash, "tree pages: another hash", t.tree_offset)
    for i in range(t.tree_pages):
        at = t.tree_offset + PAGE * i
        page = page_at(image.stream, at, 2, i, 0, image.superblock.image_uuid, image.seal)
        need(page.count == 50 or i + 1 == t.tree_pages, "tree pages: count", at)
        for group, reserved, hashes in struct.iter_unpack("<QQ64s", page.entries or b""):
            need(last < group <= (image.superblock.blocks - 1) // 128 and reserved == 0, "tree pages: a bad node", at)
            out[group], last = (at, hashes), group
    return out


def touched(image, older):
    """Groups that have a node: decided in part or grown or shrunk, and not wholly of entries without a leaf."""
    blocks, cheap, groups = image.superblock.blocks, {}, set()
    for e in image.entries:
        first, last = e.first // 128, (e.end - 1) // 128
        if e.framed or e.kind == K_PARENT:
            groups.add(first)
            continue
        for group in {first, last}:  # those between are wholly covered
            cheap[group] = cheap.get(group, 0) + min(e.end, 128 * group + 128) - max(e.first, 128 * group)
    groups |= cheap.keys()
    length = image.superblock.address_space_len
    if older and older.address_space_len != length:  # the first group that is not as it was
        groups.add(min(older.address_space_len, length) // (128 * older.block_size))
    return {g for g in groups if cheap.get(g, 0) < min(128, blocks - 128 * g)}  # none behind the end


def check_block(chain, entry):
    """A block with a frame, decoded; one that is a copy, followed."""
    image = chain.images[0]
    if entry.kind in (K_DELTA, K_PARENT) and not chain.whole:
        if entry.kind == K_DELTA:
            delta_head(image.frame_of(entry))
    elif entry.framed or entry.kind == K_PARENT:
        chain.read(0, entry.first)
