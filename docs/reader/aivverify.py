"""All that can be proven of an image: docs/format.md, section 11, both depths in one, and its parity, section 7."""
import itertools, struct
from collections import Counter, defaultdict
from aivformat import (
    BLOCKS, CHECKPOINT_HEAD, PAGE, PAGE_HEADER, PIECE, TAIL, TRAILER, TREE_NODE, Problem, attempt, crc, entries_of,
    frames, keyed_hash, need, nodes, rules, tree_root)
from aivimage import LAST_PARITY, bases_of
from aivkeys import area_code

def verify(image):  # what is wrong with an image, as a list; its roots and differences need the images it builds on
    found = image.found + [area for area in image.slots if not area]
    def check(function, *arguments):
        result = attempt(function, image, *arguments)
        found.extend([result] * isinstance(result, Problem))
        return result
    kept = check(check_frames)
    for part in (check_ends, check_parity, check_segments): check(part)
    for i in range(image.trailer.stored_pieces): check(check_piece, i)
    loaded = check(lambda image: [one.entries for one in image.line()])
    if isinstance(loaded, Problem): return found
    for part in (tree_pages,) if image.seal.locked else (check_counts, check_trees): check(part)
    for block in image.entries: check(check_block, block)
    if kept and not image.seal.locked: check(check_checkpoints, kept["CHECKPOINT"])
    return found

def check_frames(image):  # every frame, in order and without a byte between them; those looked at again, by type
    t, s, kept, stored = image.trailer, image.superblock, defaultdict(list), 0
    sessions, meta_end = image.meta and image.meta["origins"]["sessions"], t.meta_offset + t.meta_len
    areas = (PAGE + s.slot_area_len, t.frames_end), (t.meta_offset, t.stored_offset)
    for count, f in enumerate(itertools.chain(*(frames(image.stream, *area, image.seal) for area in areas)), 1):
        rules("frame", f.at, type=(t.meta_offset <= f.at < meta_end) == (f.type == "META") and (
            f.type == "PAD" or f.at < meta_end), parity=f.type != "PARITY" or "parity" in s.features,
              session_tag=not sessions or f.session_tag in sessions, data=f.type != "PAD" or not any(f.data))
        stored += f.stored_len * (f.type in BLOCKS)
        kept[f.type] += [f] * (f.type in ("CHECKPOINT", "PARITY", "META"))
    TRAILER.same(t, image.stream.length - PAGE, frames=count, payload_bytes=stored)
    rules("META", t.meta_offset, frames=kept["META"], origins=not sessions or s.session_tag in sessions)
    check_stripes(image, kept["PARITY"], kept["META"][0])
    return kept

def check_end(name, stream, tail, slots, at, end, hashes, root):  # of an image or a segment: stored list, gap, copies
    listed, gap, copy = stream.read(at, end - at), stream.length - tail + PAGE + slots, stream.length - 2 * PAGE
    rules(name, at, list=listed == hashes.ljust(len(listed), b"\0"), gap=not any(stream.read(gap, copy - gap)),
          root=tree_root("stored", nodes("stored", hashes)) == root, s=stream.read(0, PAGE) == stream.read(copy, PAGE))
def check_ends(image):
    t, s, key = image.trailer, image.superblock, image.seal.key
    rules("key slots", PAGE, mac=not key or all(area.mac == area_code(key, area) for area in image.slots if area))
    hashes = image.stream.read(t.stored_offset, 32 * t.stored_pieces)
    check_end("image", image.stream, s.tail, s.slot_area_len, t.stored_offset, t.parity_offset, hashes, t.stored_root)
def check_piece(image, i):
    at, listed = i * PIECE, image.stream.read(image.trailer.stored_offset + 32 * i, 32)
    piece = image.without_slots(at, min(PIECE, image.trailer.stored_offset - at))
    need(keyed_hash("piece", piece) == listed, f"piece {i} is not what the stored list says", at)
def check_segments(image):  # each by itself, and against the image
    for part in image.stream.segments:
        name, sb, at = part.stream.path, image.superblock.data, image.trailer.stored_offset + part.start // PIECE * 32
        own = part.number.to_bytes(4, "little"), part.start.to_bytes(8, "little")  # segment_no and segment_start
        expected = sb[:148] + own[0] + sb[152:1824] + own[1] + sb[1832:4092]
        need(not part.found, f"{name}: {part.found and part.found[0]}")
        rules(name, 0, superblock=part.stream.read(0, 4092) == expected)
        if part.trailer:
            hashes, end = image.stream.read(at, 32 * part.trailer.pieces), part.stream.length - TAIL
            check_end(name, part.stream, TAIL, 0, part.at + part.length, end, hashes, part.trailer.stored_root)

def check_counts(image):  # and that source errors touch every block that is unreadable
    s, touched = image.superblock, bytearray(image.superblock.blocks)
    errors = image.meta and image.meta.get("source_errors", {"ranges": []})["ranges"]
    for start, length in map(struct.Struct("<QQ").unpack, errors or ()):
        first, end = start // s.block_size, (start + length - 1) // s.block_size + 1
        touched[first:end] = b"\1" * (end - first)
    unknown = [block for block, e in image.entries.items() if e.kind == "UNREADABLE" and not touched[block]]
    need(errors is None or not unknown, f"META: no source error touches blocks {unknown[:3]}")
    counts = Counter("blocks_" + e.kind.lower() for e in image.entries.values())
    expected = {name: counts[name] for name in TRAILER.meanings if name.startswith("blocks_")}
    TRAILER.same(image.trailer, image.stream.length - PAGE, **expected)

def check_checkpoints(image, checkpoints):  # they are the index once more, and the stored list
    t, s, entries, next_block, pieces, previous, sessions = image.trailer, image.superblock, {}, 0, 0, 0, set()
    for number, f in enumerate(checkpoints):
        h, new = CHECKPOINT_HEAD.read(f.data, f.at), f.at // PIECE - pieces
        a, b = 64 + 16 * h.origin_count, 64 + 16 * h.origin_count + 32 * new
        CHECKPOINT_HEAD.same(h, f.at, number=number, previous_address=previous, first_piece=pieces, piece_count=new)
        origins, rest = {f.data[i:i + 16] for i in range(64, a, 16)}, f.data[b:]
        rules("checkpoint", f.at, pieces=f.data[a:b] == image.stream.read(t.stored_offset + 32 * pieces, 32 * new),
              next_block=next_block <= h.next_block <= s.blocks, subject=f.subject == number, many=new <= 1 << 18,
              entry_count=len(rest) == 48 * h.entry_count <= 48 << 16, origin_count=1 <= h.origin_count <= 16384,
              origins=sessions | {f.session_tag + bytes(4)} <= origins and not any(any(o[12:]) for o in origins))
        new = entries_of(rest, s, t.frames_end, f.at)
        rules("checkpoint", f.at, entries=not new or next_block <= min(new) and max(new) < h.next_block)
        entries.update(new)
        next_block, pieces, previous, sessions = h.next_block, f.at // PIECE, f.at, origins
    rules("checkpoints", t.last_checkpoint, last=checkpoints and previous == t.last_checkpoint,
          end=next_block == s.blocks, entries=entries == image.entries)

def trees(state):  # the nodes of level 1 of the content and of the map tree of a state
    leaves = b"".join(image.leaf(entry, block) for block, (entry, image) in enumerate(state))
    return nodes("content", leaves), nodes("map", bytes(entry.condition for entry, _ in state), 1)
def check_trees(image):  # roots of every state of a chain, and the tree pages of its newest image
    listed, at, older = tree_pages(image), image.trailer.tree_offset, image.parent and image.parent.superblock
    rules("tree pages", at, groups=touched(image, older) <= {group for group, *_ in listed})
    for one, state in image.states() if image.whole else ():
        content, states = trees(state)
        TRAILER.same(one.trailer, one.stream.length - PAGE, map_root=one.seal.shown(tree_root("map", states)),
                     content_root=one.seal.shown(tree_root("content", content)))
    rules("tree pages", at, nodes=not image.whole or listed == [
        (group, bytes(8), content[32 * group:32 * group + 32], states[32 * group:32 * group + 32])
        for group in sorted(touched(image, older))])
def tree_pages(image):  # the nodes that are listed
    pages = [image.page(2, number) for number in range(image.trailer.tree_pages)]
    listed = [*TREE_NODE.form.iter_unpack(b"".join(page.entries or b"" for page in pages))]
    groups, stored = [node[0] for node in listed], b"".join(page.data for page in pages)
    rules("tree pages", image.trailer.tree_offset, hash=keyed_hash("section", stored) == image.trailer.tree_hash,
          count=all(page.count == 50 for page in pages[:-1]), reserved=not any(any(node[1]) for node in listed),
          order=groups == sorted({*groups} & {*range(-(-image.superblock.blocks // 128))}))
    return listed
def touched(image, older):  # groups that have a node: decided in part, grown or shrunk, not only entries without a leaf
    s, cheap = image.superblock, Counter(block // 128 for block, e in image.entries.items() if not e.hashed)
    lengths = {s.address_space_len, older.address_space_len if older else s.address_space_len}
    changed = [min(lengths) // (128 * s.block_size)] * (len(lengths) - 1)  # the first that is not as it was
    return {group for group in [block // 128 for block in image.entries] + changed
            if cheap[group] < min(128, s.blocks - 128 * group)}  # none behind the end

def check_block(image, block):  # one with a frame, decoded; one that is a copy, followed
    kind, hashed = image.entries[block].kind, image.entries[block].hashed
    if kind == "DELTA" and not image.whole: bases_of(image.frame_of(block))
    elif hashed and (kind != "PARENT" or image.whole): image.read(block)

POWERS = [1]  # of 2 in GF(2^8) with the polynomial 0x11D
for _ in range(254): POWERS.append(POWERS[-1] << 1 ^ 0x11D * (POWERS[-1] >> 7))
LOG = {power: n for n, power in enumerate(POWERS)}
def coefficient(i, j): return POWERS[(LOG[255 ^ j] - LOG[255 - i ^ j]) % 255]
def parity_of(shards):  # the four parity shards of a stripe, made by XORs of whole packets
    size, rows = len(shards[0]) // 8, [[0] * 8 for _ in range(4)]
    for (j, shard), i, m in itertools.product(enumerate(shards), range(4), range(8)):
        packet = int.from_bytes(shard[m * size:m * size + size], "little")
        column = POWERS[(LOG[coefficient(i, j)] + m) % 255]
        rows[i] = [old ^ packet if column >> r & 1 else old for r, old in enumerate(rows[i])]
    return [b"".join(packet.to_bytes(size, "little") for packet in row) for row in rows]

def area_of(image):  # the parity area as the pages before it give it
    t, out, number = image.trailer, b"", 0
    protected = image.stream.read(0, PAGE) + image.stream.read(t.index_offset, t.parity_offset - t.index_offset)
    pages = [protected[i:i + PAGE] for i in range(0, len(protected), PAGE)]
    for n, stripes in image.parity_groups():
        group, pages = pages[:n], pages[n:]
        shards = [parity_of(group[s::stripes] or [bytes(PAGE)]) for s in range(stripes)]
        parity = [shards[(n + j) % stripes][j // stripes] for j in range(4 * stripes)]
        hashes, directory = [keyed_hash("page", page)[:16] for page in group + parity], b""
        for first in range(0, len(hashes), 252):
            body, count = b"".join(hashes[first:first + 252]).ljust(PAGE - 64, b"\0"), min(252, len(hashes) - first)
            head = PAGE_HEADER.form.pack(b"AVP1", 3, 0, count, number, first, t.image_uuid, bytes(16), bytes(4), 0)[:60]
            directory += head + crc(b"aiv.pdir", head + body).to_bytes(4, "little") + body
            number += 1
        out += directory + b"".join(parity) + directory
    return out
def check_parity(image):
    t, stored = image.trailer, image.stream.read(image.trailer.parity_offset, image.trailer.parity_len)
    TRAILER.same(t, t.parity_offset, parity_hash=keyed_hash("section", stored))
    need(stored == area_of(image), "parity area: not what its pages give", t.parity_offset)

def check_stripes(image, frames, first_meta):  # every stripe has its PARITY frame, and no other is there
    last, size = image.trailer.frames_end - LAST_PARITY, 128 * PIECE
    stripes = -(-last // size) if "parity" in image.superblock.features else 0
    need(sorted(f.subject for f in frames) == [*range(stripes)], "PARITY: a stripe has none, or two")
    for f in frames:
        start, end, final = f.subject * size, min(f.subject * size + size, last), f.subject == stripes - 1
        stripe, before = image.without_slots(start, end - start), (f.session_tag, f.seq + 1)
        expected = b"".join(parity_of([stripe[at:at + PIECE] for at in range(0, len(stripe), PIECE)]))
        rules("PARITY", f.at, place=end <= f.at <= end + (32 << 20) and (f.at == last) == final,
              parity=f.data == expected + bytes(4032 * final),
              number=not final or before == (first_meta.session_tag, first_meta.seq))
