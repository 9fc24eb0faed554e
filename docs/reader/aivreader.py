#!/usr/bin/env python3
"""Reads Aivory disk images; written from docs/format.md alone, to prove that it is enough. FILE is an image, or any
segment of one; those it builds on may follow in any order. Exit code: 0 good, 1 damaged or refused, 2 wrong words."""
import argparse, json, os, pathlib, sys
from aivformat import Problem, Refused, need
from aivimage import Image, link
from aivkeys import CODE, KEY_FILE, PASSPHRASE, Ring
from aivverify import verify
def info(images):  # JSON shows bytes as hexadecimal digits, and escapes what a terminal must not see
    image, hidden = images[0], ("data", "magic", "feature_names", "specification")
    parts = ("superblock", vars(image.superblock)), ("trailer", vars(image.trailer)), ("meta", image.meta or {})
    shown = {title: {name: value for name, value in part.items() if name not in hidden} for title, part in parts}
    print(json.dumps({**shown, "damage": [*map(str, image.found)]}, indent=2, default=bytes.hex))
    return not image.found

def verify_all(images):  # each file on its own place in a chain; one line for each thing that is wrong
    bad = []
    for image in images:
        need(image.whole or len(images) == 1, f"{image.path}: no whole chain among the files given")
        note = "" if image.whole else " (alone: its roots and differences need the images it builds on)"
        if image.superblock.keyed and not image.seal.key:
            note += " (without its key: only the stored bytes)" if image.seal.locked else " (without its key)"
        found = [f"{image.path}: damage: {damage}" for damage in verify(image)]
        print("\n".join(found) or f"{image.path}: good, state {image.trailer.state_root.hex()}{note}")
        bad += found
    return not bad

def restore(images, to):  # blocks without bytes are left out of the new file: they read as the zeros they are
    image, size = images[0], images[0].superblock.block_size
    need(image.whole or len(images) == 1, f"{image.path}: no whole chain among the files given")
    need(image.whole, f"{image.path}: it has a parent, which must be given, too", None, Refused)
    for one in image.line(): need(not one.seal.locked, f"{one.path}: it is sealed, and needs a key", None, Refused)
    *_, (_, state) = image.states()  # so all that is inherited is there
    with open(to, "xb") as out:
        out.truncate(image.superblock.address_space_len)
        for block in range(len(state)):
            data = image.read(block)
            if any(data): need(os.pwrite(out.fileno(), data, block * size) == len(data), f"{to}: not written")
        os.fsync(out.fileno())
    return True

def open_all(words):  # the images among the files, each once whatever segments of it are named
    ring, images, read = Ring(), [], lambda path: pathlib.Path(path).read_bytes()
    if words.key: ring.keys.append(bytes.fromhex(words.key) if len(words.key) == 64 else read(words.key))
    for kind, path in ((PASSPHRASE, words.password_file), (KEY_FILE, words.key_file), (CODE, words.recovery_code_file)):
        if path: ring.add(kind, read(path))
    for path in words.files:
        if os.path.realpath(path) not in {s.stream.path for image in images for s in image.stream.segments}:
            images.append(Image(path, ring, given=words.files))
    link(images)
    return images

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["info", "verify", "restore"], help="show as JSON, prove, write the state")
    parser.add_argument("files", nargs="+", metavar="FILE")
    for name in ("--to", "--key", "--password-file", "--key-file", "--recovery-code-file"):
        told = {"--to": "the file to make", "--key": "chain key: 64 hexadecimal digits, or a file of 32 bytes"}
        parser.add_argument(name, metavar="PATH", help=told.get(name, "opens the key slots"))
    words = parser.parse_args()
    if (words.to is None) == (words.command == "restore"): parser.error("restore needs --to, and nothing else takes it")
    try:
        images = open_all(words)
        if words.to: return restore(images, words.to)
        return info(images) if words.command == "info" else verify_all(images)
    except (Problem, OSError, ValueError) as problem: return print(f"aivreader: {problem}", file=sys.stderr)
if __name__ == "__main__": sys.exit(0 if main() else 1)
