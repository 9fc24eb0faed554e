"""The erasure code, and the parity that an image must have: docs/format.md, section 7."""

from aivformat import PAGE, PAGE_HEADER, PIECE, crc, keyed_hash, rules, need
from aivimage import LAST_PARITY

STRIPE = 128 * PIECE

def product(a, b):
    """In GF(2^8) with the polynomial 0x11D."""
    out = 0
    while b:
        out ^= a * (b & 1)
        a, b = a << 1 ^ 0x11D * (a >> 7), b >> 1
    return out

INVERSE = {a: b for a in range(1, 256) for b in range(1, 256) if product(a, b) == 1}

def coefficient(i, j):
    return product(255 ^ j, INVERSE[255 - i ^ j])

def parity_of(shards):
    """The four parity shards of a stripe, made by XORs of whole packets."""
    size = len(shards[0]) // 8
    rows = [[0] * 8 for _ in range(4)]
    for j, shard in enumerate(shards):
        packets = [int.from_bytes(shard[at:at + size], "little") for at in range(0, 8 * size, size)]
        for i, row in enumerate(rows):
            for m, packet in enumerate(packets):
                column = product(coefficient(i, j), 1 << m)
                for r in range(8):
                    if column >> r & 1:
                        row[r] ^= packet
    return [b"".join(packet.to_bytes(size, "little") for packet in row) for row in rows]

def area_of(image):
    """The parity area as the pages before it give it."""
    t, out, number = image.trailer, b"", 0
    protected = image.stream.read(0, PAGE) + image.stream.read(t.index_offset, t.parity_offset - t.index_offset)
    pages = [protected[i:i + PAGE] for i in range(0, len(protected), PAGE)]
    for n, stripes in image.parity_groups():
        group, pages = pages[:n], pages[n:]
        shards = [parity_of(group[s::stripes] or [bytes(PAGE)]) for s in range(stripes)]
        parity = [shards[(n + j) % stripes][j // stripes] for j in range(4 * stripes)]
        hashes = [keyed_hash("page", page)[:16] for page in group + parity]
        directory = b""
        for first in range(0, len(hashes), 252):
            listed, uuid = hashes[first:first + 252], image.superblock.image_uuid
            page = PAGE_HEADER.form.pack(b"AVP1", 3, 0, len(listed), number, first, uuid, bytes(16), bytes(4), 0)[:60]
            body = b"".join(listed).ljust(PAGE - 64, b"\0")
            directory += page + crc(b"aiv.pdir", page + body).to_bytes(4, "little") + body
            number += 1
        out += directory + b"".join(parity) + directory
    return out

def check_stripes(image, frames, first_meta):
    """Every stripe of the frame area has its PARITY frame, and no other is there."""
    last, slots = image.trailer.frames_end - LAST_PARITY, image.superblock.slot_area_len
    stripes = -(-last // STRIPE) if "parity" in image.superblock.features else 0
    need(sorted(f.subject for f in frames) == list(range(stripes)), "PARITY: a stripe has none, or two")
    for f in frames:
        start, end, final = f.subject * STRIPE, min(f.subject * STRIPE + STRIPE, last), f.subject == stripes - 1
        stripe = image.stream.read(start, end - start)
        if start == 0:  # key slots count as zeros
            stripe = stripe[:PAGE] + bytes(slots) + stripe[PAGE + slots:]
        expected = b"".join(parity_of([stripe[at:at + PIECE] for at in range(0, len(stripe), PIECE)]))
        rules("PARITY", f.at, place=end <= f.at <= end + (32 << 20) and (f.at == last) == final,
              parity=f.data == expected + bytes(4032 * final), number=not final or (f.session_tag, f.seq + 1) == (
                  first_meta.session_tag, first_meta.seq))
