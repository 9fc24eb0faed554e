"""The reader against the stored images and their dumps, against damage, and against the document's test vectors."""

import pathlib
import random
import re
import tempfile
import unittest

import aivformat
import aivkeys
import aivverify
from aivformat import Damage, Problem, Refused, crc, keyed_hash, nodes, state_root, tree_root
from aivimage import LAST_PARITY, Image, Joined, Segment, bases_of, levels, link
from aivkeys import CODE, KEY_FILE, PASSPHRASE, RECIPIENT, Ring, derive
from aivreader import restore, verify_all
from aivverify import trees, verify

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "testdata/golden"
PARENTS = {"child.aii": ["parent.aiv"], "sealed-child.aii": ["sealed-parent.aiv"]}
IMAGES = sorted(p.name for p in GOLDEN.iterdir() if p.suffix in (".aiv", ".aii"))
KEYED = [name for name in IMAGES if re.search("sealed|authenticated", name)]
SEALED = [name for name in KEYED if "sealed" in name]
SPLIT = [name for name in IMAGES if "split" in name]
DUMPED = [name for name in IMAGES if (GOLDEN / name).with_suffix(".dump").exists()]
PLAIN = [name for name in IMAGES if name not in KEYED + SPLIT]
KEY = b"a chain key of thirty-two bytes."


class Bytes:
    """A file in memory, in the place of a FileStream."""

    segments = ()

    def __init__(self, data, path=""):
        self.data, self.length, self.path = bytes(data), len(data), path

    def read(self, at, size):
        aivformat.need(0 <= at and at + size <= self.length, "outside the file", at)
        return self.data[at:at + size]


def files(name):
    """The names of the files of an image."""
    return sorted(p.name for p in GOLDEN.glob(name + "*"))


def image(name, data=None, keys=None, part=0):
    """A stored image; with `data` in the place of one of its files."""
    streams = [Bytes((GOLDEN / n).read_bytes() if data is None or i != part else data, n)
               for i, n in enumerate(files(name))]
    stream = Joined([Segment(s) for s in streams]) if name in SPLIT else streams[0]
    return Image(name, Ring(KEY) if keys is None and name in KEYED else keys, stream)


def linked(*images):
    """The first of these images, on top of the others."""
    link(images)
    return images[0]


def chain(name, data=None, keys=None, part=0):
    """A stored image on top of those it builds on."""
    one = linked(image(name, data, keys, part), *[image(p, keys=keys) for p in PARENTS.get(name, [])])
    aivformat.need(one.whole, "no whole chain")
    return one


def problems(name, data, keys=None, part=0):
    """What opening and verifying say; nothing, when they notice nothing."""
    try:
        return verify(chain(name, data, keys, part))
    except Problem as problem:
        return [problem]


class Golden(unittest.TestCase):
    def test_there_are_stored_images(self):
        self.assertGreaterEqual((len(IMAGES), len(KEYED), len(files("split.aiv"))), (15, 7, 3))
        self.assertGreaterEqual(len(SPLIT), 3)

    def test_every_stored_image_verifies(self):
        for name in IMAGES:
            with self.subTest(name):
                self.assertEqual(verify(chain(name)), [])

    def test_an_image_with_a_parent_verifies_alone_as_far_as_it_can(self):
        for name in PARENTS:
            self.assertEqual(verify(image(name)), [])

    def test_roots_are_those_of_the_dump(self):
        for name in DUMPED:
            dump = (GOLDEN / name).with_suffix(".dump").read_text()
            with self.subTest(name):
                one = chain(name)
                *_, (_, state) = one.states()
                content, states = map(tree_root, ("content", "map"), trees(state))
                state = state_root(one.superblock, content, states)
                for label, root in (("content", content), ("map    ", states), ("state  ", state)):
                    self.assertRegex(dump, rf"(?m)^ +{label} {one.seal.shown(root).hex()}$")
                self.assertIn(f"root {one.trailer.stored_root.hex()}", dump)

    def test_every_entry_of_the_dump_is_read_as_the_dump_says(self):
        for name in DUMPED:
            dump = (GOLDEN / name).with_suffix(".dump").read_text()
            with self.subTest(name):
                one = chain(name)
                lines = [*described(one.entries)]
                self.assertEqual(lines, re.findall(r"(?m)^ {23}(blocks? \d+.*)$", dump))

    def test_a_chain_is_restored_to_the_bytes_its_leaves_name(self):
        with tempfile.TemporaryDirectory() as folder:
            raw = pathlib.Path(folder) / "raw"
            images = [image("sealed-child.aii"), image("sealed-parent.aiv")]
            link(images)
            restore(images, raw)
            data, s = raw.read_bytes(), images[0].superblock
            self.assertEqual(len(data), s.address_space_len)
            blocks = [data[at:at + s.block_size] for at in range(0, len(data), s.block_size)]
            leaves = b"".join(keyed_hash("leaf", block) for block in blocks)
            root = tree_root("content", nodes("content", leaves, 32, 1))
            self.assertEqual(root, images[0].meta["roots"]["content"])
            self.assertEqual(images[0].seal.shown(root), images[0].trailer.content_root)
            with self.assertRaises(FileExistsError):
                restore(images, raw)

    def test_one_state_has_one_content_under_every_codec(self):
        with tempfile.TemporaryDirectory() as folder:
            names = ("none", "lz4", "zstd", "sealed", "authenticated")
            for name in names:
                restore([image(f"{name}.aiv")], pathlib.Path(folder) / name)
            raws = {(pathlib.Path(folder) / name).read_bytes() for name in names}
            self.assertEqual(len(raws), 1)

    def test_another_image_is_no_parent(self):
        images = [image("child.aii"), image("zstd.aiv")]
        link(images)
        self.assertFalse(images[0].whole)
        for function in (verify_all, lambda images: restore(images, "none")):
            with self.assertRaisesRegex(Damage, "no whole chain"):
                function(images)


def described(entries):
    """Entries in the words of a dump: blocks that follow each other without a frame are one run."""
    starts = [b for b, e in entries.items() if e.hashed or entries.get(b - 1) != e]
    for first in starts:
        e, end = entries[first], first + 1
        while not e.hashed and entries.get(end) == e:
            end += 1
        text = f"blocks {first}..{end} {e.kind}" if end > first + 1 else f"block {first} {e.kind}"
        if e.kind == "PARENT":
            yield f"{text} as block {e.place} of the parent, leaf {e.leaf.hex()}"
        else:
            yield f"{text} at 0x{e.address:x}, leaf {e.leaf.hex()}" if e.framed else text


class Keyed(unittest.TestCase):
    def test_a_sealed_image_without_its_key_is_proven_as_it_is_stored_and_gives_nothing_away(self):
        for name in SEALED:
            one = image(name, keys=Ring())
            self.assertEqual((verify(one), one.seal.locked, one.meta), ([], True, None))
            images = [image(n, keys=Ring()) for n in (name, *PARENTS.get(name, []))]
            link(images)
            with self.assertRaisesRegex(Refused, "needs a key"):
                restore(images, "none")

    def test_a_wrong_key_is_refused_and_so_is_a_key_for_an_image_without_one(self):
        for name in KEYED:
            with self.assertRaisesRegex(Refused, "nothing that was given opens"):
                image(name, keys=Ring(b"another key of thirty-two bytes."))
        with self.assertRaisesRegex(Refused, "this image has none"):
            image("zstd.aiv", keys=Ring(KEY))

    def test_a_key_file_opens_its_slot_and_another_does_not(self):
        keys = Ring()
        keys.add(KEY_FILE, b"C" * 64)
        with self.assertRaisesRegex(Refused, "nothing that was given opens"):
            image("sealed.aiv", keys=keys)
        keys.add(KEY_FILE, b"B" * 64)
        self.assertEqual(verify(image("sealed.aiv", keys=keys)), [])
        self.assertEqual(keys.keys, [KEY])

    def test_one_whole_copy_of_the_slots_is_enough(self):
        good = (GOLDEN / "sealed.aiv").read_bytes()
        for at in (5000, len(good) - aivformat.TAIL + 5000):
            keys, bad = Ring(), bytearray(good)
            keys.add(KEY_FILE, b"B" * 64)
            bad[at] ^= 1
            self.assertRegex(str(verify(image("sealed.aiv", bad, keys))), "key area")

    def test_an_authenticated_image_whose_trailer_was_made_anew_is_forged(self):
        def edit(data):
            for at in (len(data) - aivformat.TAIL, len(data) - 4096):
                data[at + 488] ^= 1  # payload_bytes, which are for display
        bad = resealed((GOLDEN / "authenticated.aiv").read_bytes(), edit)
        image("authenticated.aiv", bad, Ring())
        with self.assertRaisesRegex(Damage, "forged"):
            image("authenticated.aiv", bad)

    def test_a_superblock_that_was_made_anew_is_forged_in_whichever_copy_counts(self):
        for name in sorted({*KEYED} - {*SPLIT}):
            good = (GOLDEN / name).read_bytes()
            for lost in (None, 0, len(good) - 8192):
                bad = bytearray(good)
                for at in (0, len(good) - 8192):
                    bad[at + 160:at + 168] = (5 << 14).to_bytes(8, "little")
                    bad[at + 4092:at + 4096] = crc(b"aiv.supr", bad[at:at + 4092]).to_bytes(4, "little")
                    if at == lost:
                        bad[at:at + 4096] = bytes(4096)
                with self.subTest(f"{name}, {lost}"), self.assertRaisesRegex(Damage, "superblock .* forged"):
                    image(name, bytes(bad))

    def test_a_lost_superblock_of_a_keyed_image_leaves_the_copy(self):
        for name in KEYED:
            bad = bytearray((GOLDEN / name).read_bytes())
            bad[:4096] = bytes(4096)
            self.assertRegex(str(image(name, bytes(bad)).found), "superblock")

    def test_slots_are_opened_as_the_vectors_say(self):
        secret_key = "aiv-secret-exvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvmyqvmh4"
        for kind, secret, wrapped, mac, costs in (
                (PASSPHRASE, "Zu\u0308rich\nand more\n".encode(),
                 "2a0284ff3a03dd7a7876abb24fa6c4294a879c8d0e65829874bf9c19e6461efe7938929028be69319d27be37b5db46d2",
                 "51244ee608812f09", (64, 2, 2)),
                (KEY_FILE, b"\x5a" * 32,
                 "e7edbaf987e7b1a2316535d4f76bd5f212b41fb820860dd1994d53c72556e343d509d1162f61e096fc81785b35371e0f",
                 "101a91946668a49d", (0, 0, 0)),
                (CODE, b"# a note\n000gd-40R4X-0M3OO-E209K\n185G3 R38ED-1W8I1-24GKZ\n",
                 "e2f8cbaaebe90bc8a0d049fad622d52d6a3c7878ee87a0d2e247210bd8c139750400882238a16567e95a24e09fd3731d",
                 "767099b49cb45ca5", (0, 0, 0)),
                (RECIPIENT, f"# a note\n{secret_key}\n".encode(),
                 "89bd56d8986f1f354da495af39577c39f71cabcfecaaad259c4dc9602f342f57b98c7fddd64d2d65f35b4aa468117c6a",
                 "8ddd83f4e61c9274", (0, 0, 0))):
            with self.subTest(kind):
                key, salt = bytes(range(32)), bytes(range(0x20, 0x40))
                public, own = bytes(32), bytes(32)
                if kind == RECIPIENT:
                    public, own = (aivkeys.X25519PrivateKey.from_private_bytes(s).public_key().public_bytes_raw()
                                   for s in (bytes(range(0x40, 0x60)), b"\x77" * 32))
                slot = aivkeys.SLOT.form.pack(kind, bytes(3), *costs, 1, bytes(8), b"label", salt, public, own,
                                            bytes.fromhex(wrapped), bytes(784))
                area = bytearray(aivkeys.AREA)
                commitment = derive(key, "key commitment")
                area[:96] = b"AIVKEYS1" + (1).to_bytes(8, "little") + commitment + b"\1" + bytes(15 + 32)
                area[1024:2048] = slot
                code = derive(key, "slot area mac", bytes(area[:64] + area[96:992] + area[1024:]))
                self.assertEqual(code.hex()[:16], mac)
                area[64:96] = code
                area[992:1024] = keyed_hash("key-slot area", bytes(area[:992] + area[1024:]))
                keys = Ring()
                keys.add(PASSPHRASE if kind == PASSPHRASE else CODE if kind == CODE else KEY_FILE, secret)
                sb = aivformat.SimpleNamespace(keyed=True, key_commitment=commitment)
                self.assertEqual(keys.key_for(sb, [aivkeys.key_area(Bytes(area), sb, 0)]), key)

    def test_a_paper_key_is_the_chain_key_and_needs_no_slots(self):
        for key, text in (
            (bytes(range(32)), "000GD-40R4X-0M300-E209K-185G3-R38ED-1W811-24GKZ-2GAH1-C5RR2-34D1B-P70XX-3RFGZ"),
            (KEY, "C4G6K-6T312-D5Q20-0TV5R-F4G6H-YSH0B-EHM6A-JWKMJ-F4PQN-8XVFF-41H75-JX35K-ECQ0C")):
            keys = Ring()
            keys.add(CODE, b"\xef\xbb\xbf # a sh\xe9et\n" + f"{text[:47]}\n\t{text[48:]}\n".replace("-", "\u2013", 3).replace("-", "_", 3).encode())
            self.assertEqual(keys.keys, [key])
        self.assertEqual(verify(image("sealed.aiv", keys=keys)), [])
        with self.assertRaisesRegex(Damage, "paper key 65"): keys.add(CODE, text[:76].encode())

    def test_mistyped_codes_are_told(self):
        with self.assertRaisesRegex(Damage, "group 2 is mistyped"):
            aivkeys.paper(b"000GD-40R4Y-0M300-E209K-185G3-R38ED-1W811-24GKZ")
        with self.assertRaisesRegex(Damage, "mistyped"):
            aivkeys.secret_key(b"aiv-secret-exvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvqexvmyqvmh0")


class Split(unittest.TestCase):
    def segments(self, *parts, name="split.aiv"):
        names = files(name)
        return Joined([Segment(Bytes((GOLDEN / names[part]).read_bytes(), names[part])) for part in parts])

    def test_any_segment_finds_the_others_beside_it(self):
        for whole in SPLIT:
            for name in files(whole):
                keys = Ring(KEY) if whole in KEYED else Ring()
                self.assertEqual(verify(Image(GOLDEN / name, keys)), [])

    def test_a_key_file_opens_the_slots_of_the_first_and_of_the_last_segment(self):
        for part, at in ((0, 5000), (3, -aivformat.TAIL + 5000)):
            keys, name = Ring(), files("sealed-split.aiv")[part]
            keys.add(KEY_FILE, b"B" * 64)
            bad = bytearray((GOLDEN / name).read_bytes())
            bad[at] ^= 1
            one = image("sealed-split.aiv", bad, keys, part)
            self.assertRegex(str(verify(one)), "key area")
            self.assertEqual(keys.keys, [KEY])

    def test_a_missing_segment_is_told_by_its_number_and_one_twice_is_refused(self):
        for parts, number in (((1, 2), 1), ((0, 2), 2), ((0, 1), 3)):
            with self.assertRaisesRegex(Refused, f"segment {number} of the image is missing"):
                self.segments(*parts)
        with self.assertRaisesRegex(Damage, "another file is segment 2, too"):
            self.segments(0, 1, 1, 2)
        self.assertEqual(self.segments(2, 0, 1).length, image("split.aiv").stream.length)

    def test_a_lost_superblock_of_a_segment_is_told_and_does_not_hide_the_image(self):
        for part, name in enumerate(files("split.aiv")):
            bad = bytearray((GOLDEN / name).read_bytes())
            bad[:4096] = bytes(4096)
            one = image("split.aiv", bad, part=part)
            self.assertEqual(one.trailer.state_root, image("split.aiv").trailer.state_root)
            self.assertRegex(str(verify(one)), "superblock")


class Damaged(unittest.TestCase):
    def test_flipped_bits_are_found(self):
        chance = random.Random(20260301)
        for name in IMAGES:
            for part, file in enumerate(files(name)):
                good = (GOLDEN / file).read_bytes()
                last = part + 1 == len(files(name))
                ends = len(good) - (image(name).superblock.tail if last else aivformat.TAIL)
                # Half of the places outside the gap, which is most of a small file.
                places = [chance.randrange(len(good)) for _ in range(30)] + [chance.randrange(ends) for _ in range(70)]
                for i, at in enumerate(places):
                    bad = bytearray(good)
                    bad[at] ^= 1 << chance.randrange(8)
                    keys = Ring() if name in SEALED and i % 2 else None  # locked images show all damage, too
                    with self.subTest(f"{file}, byte {at}"):
                        self.assertNotEqual(problems(name, bad, keys, part), [])

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
        self.assertIn("frame: a bad payload_crc (at 0x1000)", map(str, problems("none.aiv", bad)))

    def test_a_lost_burst_of_64_kib_costs_one_copy_at_most(self):
        good = (GOLDEN / "zstd.aiv").read_bytes()
        for start in (0, len(good) - aivformat.TAIL, len(good) - 65536):
            with self.subTest(start):
                bad = bytearray(good)
                bad[start:start + 65536] = b"\xa5" * 65536
                self.assertEqual(image("zstd.aiv", bad).trailer.state_root, image("zstd.aiv").trailer.state_root)
                self.assertNotEqual(problems("zstd.aiv", bad), [])

    def test_a_file_that_is_cut_off_is_no_finished_image(self):
        for name in sorted({*IMAGES} - {*SPLIT}):
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
        for at, value, words in ((10, 99, "format 0.99"), (17, 1, "overlay"), (18, 128, "bit 23")):
            bad = bytearray((GOLDEN / "zstd.aiv").read_bytes())
            bad[at] = value
            bad[4092:4096] = crc(b"aiv.supr", bad[:4092]).to_bytes(4, "little")
            with self.subTest(words), self.assertRaisesRegex(Refused, words):
                image("zstd.aiv", bad)

    def test_something_else_is_not_called_an_image(self):
        with self.assertRaisesRegex(Refused, "not an image"):
            image("zstd.aiv", random.Random(1).randbytes(200000))


def resealed(good, edit):
    """An image with one change and every checksum and hash over it made right again: only the rules are left."""
    one, data = Image("good", stream=Bytes(good)), bytearray(good)
    t, n = one.trailer, len(good)
    edit(data)

    def seal(at, salt, size=64):
        body = data[at:at + 60] + data[at + 64:at + size]
        data[at + 60:at + 64] = crc(salt, body).to_bytes(4, "little")

    for at, end in ((4096, t.frames_end), (t.meta_offset, t.stored_offset)):
        while at < end:
            frame = aivformat.frame_at(one.stream, at, end, one.seal)
            load = data[at + 64:at + 64 + frame.stored_len]
            data[at + 48:at + 52] = crc(b"aiv.load", load).to_bytes(4, "little")
            seal(at, b"aiv.fram")
            at += frame.size
    place, hashes = t.index_offset, []
    for count in levels(t.index_leaf_pages):
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
    area = aivverify.area_of(image)
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
    (13, b"\1", "a bad reserved"), (145, b"\x17", "a bad size"), (144, b"\2", "a bad kind"),
    (0x1000 + 5, b"\1", "cannot be decoded|another length"), (0x1000 + 6, b"\1", "a bad flags"),
    (0x1000 + 7, b"\x09", "a bad depth"), (0x1000 + 8, b"\0", "a bad session_tag"),
    (0x1000 + 32, b"\1", "a bad subject"), (0x1000 + 52, b"\0", "a bad leaf_prefix"), (0x1000 + 64 + 190, b"\1", "padding"),
    (0x5340 + 6, b"\0", "a bad flags"), (0x5880 + 64 + 9, b"\1", "a bad data"),
    (0x5580 + 64 + 8, b"\1", "checkpoint head: a bad number"), (0x5580 + 64 + 16, b"\x3e", "checkpoint"),
    (0x5580 + 64 + 80 + 5, b"\x20", "index entry of block 0|a bad entries"), (0x5580 + 64 + 50, b"\1", "checkpoint head: a bad reserved"),
    (0x6000 + 5, b"\1", "a bad level"), (0x6000 + 24, b"\0", "a bad image_uuid"),
    (0x6000 + 16, b"\1", "a bad first"),
    (0x6000 + 64 + 2 * 48 + 5, b"\4", "a bad gap"), (0x6000 + 64 + 2 * 48 + 8, b"\1", "a bad place"),
    (0x6000 + 64 + 2 * 48 + 7, b"\x40", "a bad blocks_|_root"), (0x6000 + 64 + 8, b"\x41", "a bad magic"),
    (0x6000 + 64 + 14, b"\5", "a bad size"), (0x6000 + 64 + 16, b"\0", "a bad leaf_prefix"),
    (0x7000 + 80, b"\0", "a bad nodes"), (0x7000 + 64 + 80, b"\1", "a bad (reserved|order|nodes|groups)"),
    (0x8000 + 64 + 2, b"\2", "a bad flags"), (0x8000 + 64, b"\x63\0\0\0", "a bad tag"),
    (0x85c0 + 64 + 8, b"\0\0\x30", "no source error touches"),
    (-4096 + 432, b"\0", "a bad frames"), (-4096 + 440, b"\6", "a bad blocks_data"),
    (-4096 + 424, b"\x40", "a bad last"), (-4096 + 112, b"\0", "state_root"),
    (-4096 + 700, b"\1", "a bad reserved"),
]


class Forged(unittest.TestCase):
    def test_resealing_alone_changes_nothing(self):
        for name in PLAIN:
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


    def test_parity_is_what_its_pages_and_stripes_give_whatever_its_hashes_say(self):
        good = (GOLDEN / "parity.aiv").read_bytes()
        place = image("parity.aiv").trailer.frames_end - LAST_PARITY
        for at, words in ((64 + 5, "a bad parity"), (64 + 262144, "a bad parity"),
                          (24, "a bad number"), (32, "a stripe has none")):
            def edit(data):
                data[place + at] ^= 1
            with self.subTest(words):
                self.assertRegex(str(problems("parity.aiv", resealed(good, edit))), words)
        bad, t = bytearray(good), image("parity.aiv").trailer
        bad[t.parity_offset + 3 * 4096] ^= 1
        area = bytes(bad[t.parity_offset:t.parity_offset + t.parity_len])
        for at in (len(bad) - aivformat.TAIL_PARITY, len(bad) - 4096):
            bad[at + 576:at + 608] = keyed_hash("section", area)
            bad[at + 4060:at + 4092] = keyed_hash("trailer", bytes(bad[at:at + 4060]))
            bad[at + 4092:at + 4096] = crc(b"aiv.trlr", bad[at:at + 4092]).to_bytes(4, "little")
        self.assertEqual([str(p) for p in problems("parity.aiv", bad)],
                         [f"parity area: not what its pages give (at 0x{t.parity_offset:x})"])


class Local(unittest.TestCase):
    """Differences to blocks of the same image."""

    def test_the_vector_of_the_document(self):
        blocks = [bytes(i * i // divisor & 255 for i in range(16384)) for divisor in (256, 128)]
        expected = blocks[0][8192:] + blocks[1][:8192]
        leaves = [keyed_hash("leaf", block).hex() for block in (*blocks, expected)]
        for i, leaf in enumerate(leaves):
            self.assertIn(f"leaf of block {i}     {leaf}\n", aivformat.DOCUMENT)
        made = bytes.fromhex(re.search(r"(?m)^zstd frame +([0-9a-f]+)$", aivformat.DOCUMENT)[1])
        head = bytes.fromhex(re.search(r"(?m)^head +([0-9a-f]{16})$", aivformat.DOCUMENT)[1])
        bases = b"".join(bytes([i]) + bytes(7) + bytes.fromhex(leaves[i]) for i in (0, 1))
        frame = aivformat.SimpleNamespace(data=head + bases + made, plain_len=16384, codec=2, type="LOCAL", at=0)
        skip, named = bases_of(frame)
        self.assertEqual(named, [(i, bytes.fromhex(leaves[i])) for i in (0, 1)])
        self.assertEqual(aivformat.decode(frame, skip, b"".join(blocks)), expected)

    def test_a_base_is_lower_stored_whole_and_has_its_leaf(self):
        for name in ("local.aiv", "local-sealed.aiv"):
            one, kinds = image(name), set()
            for block, entry in one.entries.items():
                if entry.kind == "LOCAL":
                    for base, leaf in bases_of(one.frame_of(block))[1]:
                        kinds.add(one.entries[base].kind)
                        self.assertEqual((base < block, one.entries[base].leaf), (True, leaf))
            self.assertTrue(kinds and kinds <= {"DATA", "REF"}, kinds)

    def test_a_base_that_breaks_a_rule_is_refused_whatever_checksums_say(self):
        good, one = (GOLDEN / "local.aiv").read_bytes(), image("local.aiv")
        block, entry = next((b, e) for b, e in one.entries.items() if e.kind == "LOCAL")
        count = len(bases_of(one.frame_of(block))[1])
        local = [b for b, e in one.entries.items() if e.kind == "LOCAL"]
        head, base = entry.address + 64, entry.address + 72
        cases = [(head, b"\0", "a bad count"), (head, b"\3", "a bad count|cannot be decoded"), (head + 5, b"\1", "a bad reserved"),
                 (base, block.to_bytes(8, "little"), "a bad base"), (base, (1 << 39).to_bytes(8, "little"), "a bad base"),
                 (base + 8, bytes(32), "a bad base"), (base + 40 * count, b"\0", "a bad magic|cannot be decoded")]
        zero = next((b for b, e in one.entries.items() if not e.hashed and b < block), None)
        cases += [] if zero is None else [(base, zero.to_bytes(8, "little") + bytes(32), "a bad base")]
        for at, new, words in cases:
            def edit(data):
                self.assertNotEqual(data[at:at + len(new)], new)
                data[at:at + len(new)] = new
            with self.subTest(f"0x{at:x}, {words}"):
                self.assertRegex("; ".join(map(str, problems("local.aiv", resealed(good, edit)))), words)
        self.assertTrue(local)

    def test_a_local_block_needs_its_feature(self):
        good = (GOLDEN / "local.aiv").read_bytes()

        def edit(data):
            data[17] &= ~2
        self.assertRegex(str(problems("local.aiv", resealed(good, edit))), "a bad kind")


class Vectors(unittest.TestCase):
    """Those of sections 6 and 7."""

    def test_the_erasure_code(self):
        self.assertEqual(bytes(aivverify.coefficient(1, j) for j in (0, 1, 2, 127)).hex(), "7ffc7e55")
        self.assertEqual(bytes(aivverify.coefficient(2, j) for j in (0, 1, 2, 127)).hex(), "e2ffe65e")
        self.assertEqual(bytes(aivverify.coefficient(3, j) for j in (0, 1, 2, 127)).hex(), "801d8326")
        self.assertEqual({aivverify.coefficient(0, j) for j in range(128)}, {1})
        made = aivverify.parity_of([bytes(i & 255 ^ j for i in range(512)) for j in range(3)])
        self.assertEqual(b"".join(p[:8] for p in made).hex(),
                         "0302010007060504" "4243404146474445" "0203000106070405" "0000000000000000")
        self.assertEqual(aivkeys.blake3(b"".join(made)).hexdigest(),
                         "b95fc1f6d404c9f2e254a6af42f679300cf9f83dac8e271abb902a070eb371ae")

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
