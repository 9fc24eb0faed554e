"""The reader against the stored images and their dumps, against damage, and against the document's test vectors."""

import pathlib
import random
import re
import tempfile
import unittest

import aivformat
import aivparity
from aivformat import Damage, Problem, Refused, crc, keyed_hash
from aivimage import Chain, Image, nodes, state_root, tree_root
from aivreader import restore, whole_chain
from aivverify import verify

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "testdata/golden"
PARENTS = {"child.aii": ["parent.aiv"]}
# Images with a key, which this reader refuses by the name of the feature.
KEYED = {"authenticated.aiv": "authenticated", "sealed.aiv": "sealed", "sealed-parent.aiv": "sealed",
         "sealed-child.aii": "sealed", "split.aiv": "split"}
IMAGES = sorted(p.name for p in GOLDEN.iterdir() if p.suffix in (".aiv", ".aii") and p.name not in KEYED)


class Bytes:
    """A file in memory, in the place of a FileStream."""

    def __init__(self, data):
        self.data, self.length = bytes(data), len(data)

    def read(self, at, size):
        aivformat.need(0 <= at and at + size <= self.length, "outside the file", at)
        return self.data[at:at + size]


def image(name, data=None):
    return Image(name, Bytes((GOLDEN / name).read_bytes() if data is None else data))


def chain(name, data=None):
    return Chain.of(image(name, data), [image(p) for p in PARENTS.get(name, [])])


def problems(name, data):
    """What opening and verifying say; nothing, when they notice nothing."""
    try:
        return verify(chain(name, data))
    except Problem as problem:
        return [problem]


class Golden(unittest.TestCase):
    def test_there_are_stored_images(self):
        self.assertGreaterEqual(len(IMAGES), 6)

    def test_every_stored_image_verifies(self):
        for name in IMAGES:
            with self.subTest(name):
                self.assertEqual(verify(chain(name)), [])

    def test_an_image_with_a_parent_verifies_alone_as_far_as_it_can(self):
        self.assertEqual(verify(Chain([image("child.aii")])), [])

    def test_roots_are_those_of_the_dump(self):
        for name in IMAGES:
            dump = (GOLDEN / name).with_suffix(".dump").read_text()
            with self.subTest(name):
                one, segments = whole_chain([image(name), *map(image, PARENTS.get(name, []))])
                content, states = one.trees(segments, 0)
                content, states = tree_root("content", content), tree_root("map", states)
                state = state_root(one.images[0].superblock, content, states)
                for label, root in (("content", content), ("map    ", states), ("state  ", state)):
                    self.assertRegex(dump, rf"(?m)^ +{label} {root.hex()}$")
                self.assertIn(f"root {one.images[0].trailer.stored_root.hex()}", dump)

    def test_every_entry_of_the_dump_is_read_as_the_dump_says(self):
        for name in IMAGES:
            dump = (GOLDEN / name).with_suffix(".dump").read_text()
            with self.subTest(name):
                one = chain(name)
                one.load()
                lines = [described(e) for e in one.images[0].entries]
                self.assertEqual(lines, re.findall(r"(?m)^ {23}(blocks? \d+.*)$", dump))

    def test_a_chain_is_restored_to_the_bytes_its_leaves_name(self):
        with tempfile.TemporaryDirectory() as folder:
            raw = pathlib.Path(folder) / "raw"
            images = [image("child.aii"), image("parent.aiv")]
            restore(images, raw)
            data, s = raw.read_bytes(), images[0].superblock
            self.assertEqual(len(data), s.address_space_len)
            blocks = [data[at:at + s.block_size] for at in range(0, len(data), s.block_size)]
            leaves = b"".join(keyed_hash("leaf", block) for block in blocks)
            self.assertEqual(tree_root("content", nodes("content", leaves, 32, 1)), images[0].trailer.content_root)
            with self.assertRaises(FileExistsError):
                restore(images, raw)

    def test_one_state_has_one_content_under_every_codec(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("none", "lz4", "zstd"):
                restore([image(f"{name}.aiv")], pathlib.Path(folder) / name)
            raws = {(pathlib.Path(folder) / name).read_bytes() for name in ("none", "lz4", "zstd")}
            self.assertEqual(len(raws), 1)

    def test_another_image_is_no_parent(self):
        with self.assertRaisesRegex(Damage, "no whole chain"):
            Chain.of(image("child.aii"), [image("zstd.aiv")])


def described(e):
    """An entry in the words of a dump."""
    kind = aivformat.KIND_NAMES[e.kind]
    text = f"blocks {e.first}..{e.end} {kind}" if e.run > 1 else f"block {e.first} {kind}"
    if e.kind == aivformat.K_PARENT:
        return f"{text} as block {e.place} of the parent, leaf {e.leaf.hex()}"
    return f"{text} at 0x{e.address:x}, leaf {e.leaf.hex()}" if e.framed else text


class Damaged(unittest.TestCase):
    def test_flipped_bits_are_found(self):
        chance = random.Random(20260301)
        for name in IMAGES:
            good = (GOLDEN / name).read_bytes()
            ends = len(good) - image(name).superblock.tail
            # Half of the places outside the gap, which is most of a small file.
            places = [chance.randrange(len(good)) for _ in range(30)] + [chance.randrange(ends) for _ in range(70)]
            for at in places:
                with self.subTest(f"{name}, byte {at}"):
                    bad = bytearray(good)
                    bad[at] ^= 1 << chance.randrange(8)
                    self.assertNotEqual(problems(name, bad), [])

    def test_every_byte_of_the_fixed_records_is_proven(self):
        name, chance = "zstd.aiv", random.Random(5)
        good = (GOLDEN / name).read_bytes()
        n = len(good)
        for start in (0, n - 2 * 4096, n - 4096, n - aivformat.TAIL):
            for at in [*range(start, start + 160, 3), *range(start + 200, start + 4096, 97), start + 4095]:
                with self.subTest(f"byte {at}"):
                    bad = bytearray(good)
                    bad[at] ^= 1 << chance.randrange(8)
                    self.assertNotEqual(problems(name, bad), [])

    def test_a_changed_frame_is_found_and_told_with_its_place(self):
        bad = bytearray((GOLDEN / "none.aiv").read_bytes())
        bad[0x1100 + 64 + 5] ^= 1
        self.assertIn("frame: crc of the payload is wrong (at 0x1000)", map(str, problems("none.aiv", bad)))

    def test_a_lost_burst_of_64_kib_costs_one_copy_at_most(self):
        good = (GOLDEN / "zstd.aiv").read_bytes()
        for start in (0, len(good) - aivformat.TAIL, len(good) - 65536):
            with self.subTest(start):
                bad = bytearray(good)
                bad[start:start + 65536] = b"\xa5" * 65536
                self.assertEqual(image("zstd.aiv", bad).trailer.state_root, image("zstd.aiv").trailer.state_root)
                self.assertNotEqual(problems("zstd.aiv", bad), [])

    def test_a_file_that_is_cut_off_is_no_finished_image(self):
        for name in IMAGES:
            good = (GOLDEN / name).read_bytes()
            for length in [0, 1, 4095, 4096, 81919, len(good) - 4096, len(good) - 1]:
                with self.subTest(f"{name}, {length} bytes"), self.assertRaises(Problem):
                    image(name, good[:length])
            with self.assertRaisesRegex(Refused, "not an image"):
                image(name, good[:4095])
            with self.assertRaisesRegex(Refused, "unfinished"):
                image(name, good[:4096])
            with self.subTest(f"{name}, a byte more"), self.assertRaises(Problem):
                image(name, good + b"\0")

    def test_a_newer_image_is_called_newer_and_not_damaged(self):
        for at, value, words in ((10, 99, "format 0.99"), (16, 1, "sealed"), (18, 128, "bit 23")):
            bad = bytearray((GOLDEN / "zstd.aiv").read_bytes())
            bad[at] = value
            bad[4092:4096] = crc(b"aiv.supr", bad[:4092]).to_bytes(4, "little")
            with self.subTest(words), self.assertRaisesRegex(Refused, words):
                image("zstd.aiv", bad)

    def test_an_image_with_a_key_is_refused_by_the_name_of_its_feature(self):
        for name, feature in KEYED.items():
            with self.subTest(name), self.assertRaisesRegex(Refused, feature):
                image(name)

    def test_something_else_is_not_called_an_image(self):
        with self.assertRaisesRegex(Refused, "not an image"):
            image("zstd.aiv", random.Random(1).randbytes(200000))


def resealed(good, edit):
    """An image with one change and every checksum and hash over it made right again: only the rules are left."""
    one, data = Image("good", Bytes(good)), bytearray(good)
    t, n = one.trailer, len(good)
    edit(data)

    def seal(at, salt, size=64):
        body = data[at:at + 60] + data[at + 64:at + size]
        data[at + 60:at + 64] = crc(salt, body).to_bytes(4, "little")

    for at, end in ((4096, t.frames_end), (t.meta_offset, t.stored_offset)):
        while at < end:
            frame = aivformat.frame_at(one.stream, at, end)
            load = data[at + 64:at + 64 + frame.stored_len]
            data[at + 48:at + 52] = crc(b"aiv.load", load).to_bytes(4, "little")
            seal(at, b"aiv.fram")
            at += frame.size
    place, hashes = t.index_offset, []
    for count in aivformat.levels(t.index_leaf_pages):
        for i in range(count):
            for k, child in enumerate(hashes[84 * i:84 * i + 84]):
                data[place + 4096 * i + 80 + 48 * k:place + 4096 * i + 112 + 48 * k] = child
            seal(place + 4096 * i, b"aiv.indx", 4096)
        hashes = [keyed_hash("page", bytes(data[a:a + 4096])) for a in range(place, place + 4096 * count, 4096)]
        place += 4096 * count
    for at in range(t.tree_offset, t.meta_offset, 4096):
        seal(at, b"aiv.tree", 4096)
    data[4092:4096] = crc(b"aiv.supr", data[:4092]).to_bytes(4, "little")
    data[n - 8192:n - 4096] = data[:4096]
    pieces = [bytes(data[a:min(a + 65536, t.stored_offset)]) for a in range(0, t.stored_offset, 65536)]
    listed = b"".join(keyed_hash("piece", piece) for piece in pieces)
    data[t.stored_offset:t.stored_offset + len(listed)] = listed
    meta = bytes(data[t.meta_offset:t.meta_offset + t.meta_len])
    image = aivformat.SimpleNamespace(trailer=t, stream=Bytes(data), superblock=one.superblock,
                                      parity_groups=one.parity_groups)
    area = aivparity.area_of(image)
    data[t.parity_offset:t.parity_offset + t.parity_len] = area
    for at in (n - one.superblock.tail, n - 4096):
        data[at + 576:at + 608] = keyed_hash("section", area)
        data[at + 208:at + 240] = tree_root("stored", nodes("stored", listed, 32, 1))
        data[at + 280:at + 312] = hashes[0]
        data[at + 328:at + 360] = keyed_hash("section", bytes(data[t.tree_offset:t.meta_offset]))
        data[at + 376:at + 408] = keyed_hash("section", meta)
        data[at + 4060:at + 4092] = keyed_hash("trailer", bytes(data[at:at + 4060]))
        data[at + 4092:at + 4096] = crc(b"aiv.trlr", data[at:at + 4092]).to_bytes(4, "little")
    return bytes(data)


# Where in `zstd.aiv` (see its dump), the new bytes, and what is said of them. Both trailers get a change of one.
FORGED = [
    (13, b"\1", "reserved bytes"), (145, b"\x17", "a bad size"), (144, b"\2", "kind and parent"),
    (0x1000 + 5, b"\1", "cannot be decoded|another length"), (0x1000 + 6, b"\1", "damaged flag"),
    (0x1000 + 7, b"\x09", "flags or depth"), (0x1000 + 8, b"\0", "a session that origins do not name"),
    (0x1000 + 32, b"\1", "of block 1"), (0x1000 + 52, b"\0", "of another leaf"), (0x1000 + 64 + 190, b"\1", "padding"),
    (0x5340 + 6, b"\0", "damaged flag"), (0x5880 + 64 + 9, b"\1", "PAD: not zeros"),
    (0x5580 + 64 + 8, b"\1", "checkpoint: its number"), (0x5580 + 64 + 16, b"\x3e", "checkpoint"),
    (0x5580 + 64 + 80 + 5, b"\x20", "index entry of block 0|other entries"), (0x5580 + 64 + 50, b"\1", "a bad head"),
    (0x6000 + 5, b"\1", "level|first entry"), (0x6000 + 24, b"\0", "not the one"),
    (0x6000 + 16, b"\1", "not its first entry"),
    (0x6000 + 64 + 2 * 48 + 5, b"\4", "gap or overlap"), (0x6000 + 64 + 2 * 48 + 8, b"\1", "a place or leaf"),
    (0x6000 + 64 + 2 * 48 + 7, b"\x40", "number of blocks|roots?"), (0x6000 + 64 + 8, b"\x41", "no magic"),
    (0x6000 + 64 + 14, b"\5", "another size"), (0x6000 + 64 + 16, b"\0", "another leaf"),
    (0x7000 + 80, b"\0", "other nodes of group 0"), (0x7000 + 64 + 80, b"\1", "other groups|bad node"),
    (0x8000 + 64 + 2, b"\2", "a bad item"), (0x8000 + 64, b"\x63\0\0\0", "unknown tag"),
    (0x85c0 + 64 + 8, b"\0\0\x30", "no source error touches"),
    (-4096 + 432, b"\0", "number of frames"), (-4096 + 440, b"\6", "number of blocks DATA"),
    (-4096 + 424, b"\x40", "the last is missing"), (-4096 + 112, b"\0", "state_root"),
    (-4096 + 700, b"\1", "bad value"),
]


class Forged(unittest.TestCase):
    def test_resealing_alone_changes_nothing(self):
        for name in IMAGES:
            good = (GOLDEN / name).read_bytes()
            self.assertEqual(resealed(good, lambda data: None), good, name)

    def test_what_breaks_a_rule_is_refused_whatever_its_checksums_say(self):
        good = (GOLDEN / "zstd.aiv").read_bytes()
        for at, new, words in FORGED:
            def edit(data):
                places = [at % len(good)] + [at % len(good) - aivformat.TAIL + 4096] * (at < 0)
                for place in places:
                    self.assertNotEqual(data[place:place + len(new)], new)
                    data[place:place + len(new)] = new
            with self.subTest(f"0x{at % len(good):x}"):
                self.assertRegex("; ".join(map(str, problems("zstd.aiv", resealed(good, edit)))), words)


class Vectors(unittest.TestCase):
    """Those of section 6."""

    def test_checksums_and_leaves(self):
        self.assertEqual(crc(b"", b"123456789"), 0xE3069283)
        self.assertEqual(crc(b"aiv.load", b"123456789"), 0x760B6FFE)
        self.assertTrue(keyed_hash("leaf", b"\0").hex().startswith("d5bee8e83e34f2da"))
        self.assertTrue(keyed_hash("leaf", bytes(65536)).hex().startswith("f9731dc12e835b0e"))
        self.assertTrue(keyed_hash("leaf", aivformat.FILL * 4096).hex().startswith("0391c86f01dfbd71"))

    def test_roots_of_129_zero_blocks(self):
        leaves = keyed_hash("leaf", bytes(65536)) * 128 + keyed_hash("leaf", bytes(512))
        content = tree_root("content", nodes("content", leaves, 32, 1))
        states = tree_root("map", nodes("map", bytes(129), 1, 1))
        self.assertEqual(content.hex(), "e1760cf47cf810c5f16a7fc03067280c342a6b69a4346ca2262a477e9e433c35")
        self.assertEqual(states.hex(), "adf86f2eba3b63c621b98197fa5a0a59c591fb488579564b4017071f6887c36b")
        s = aivformat.SimpleNamespace(address_space_len=128 * 65536 + 512, block_size=65536, sector_size=512)
        self.assertEqual(state_root(s, content, states).hex(),
                         "7ee753fd70f0ace6417b3e30519d6622ff82fb105fe589803b6b416f1e0e6a03")

    def test_root_of_one_piece(self):
        piece = keyed_hash("piece", bytes(65536))
        self.assertEqual(tree_root("stored", nodes("stored", piece, 32, 1)).hex(),
                         "74bfa2c153339345d70b3013f108592a7046e423d437ee595c954cbf0f570a7d")


if __name__ == "__main__":
    unittest.main()
