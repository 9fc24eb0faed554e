"""The chain key: what is derived from it, what it decrypts, and the slots that hold it: docs/format.md, section 15."""

import functools
import itertools
import re
import unicodedata

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aivformat import Layout, Refused, guarded, keyed_hash, label, need, rules

AREA, AREA_HEAD, SLOT = 32768, Layout("KeyAreaHead", "key-slot area"), Layout("KeySlot")
PASSPHRASE, KEY_FILE, CODE, RECIPIENT = range(1, 5)
SYMBOLS = {c: n for n, c in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")} | {"I": 1, "L": 1, "O": 0}

def derive(key, purpose, info=b""):
    return blake3(f"aivory draft: {purpose}".ljust(32).encode() + info, key=key).digest()

class Seal:
    """How one image is protected: `sealed` or not, and its chain key or None."""
    def __init__(self, sb, key):
        self.sealed, self.key, self.locked = "sealed" in sb.features, key, "sealed" in sb.features and not key
        self.cipher = functools.lru_cache(64)(lambda *purpose: AESGCM(derive(key, *purpose)))

    def decrypt(self, purpose, info, nonce, data, associated, at):
        return guarded(purpose, at, InvalidTag, self.cipher(purpose, info).decrypt, nonce, data, associated)

    def shown(self, root):
        """What stands for a root of a state in trailers and links."""
        return derive(self.key, "clear root", root) if self.sealed else root

    def mac(self, t, sb):
        """The authentication code of a trailer and the superblock, whichever copy was taken."""
        return derive(self.key, "trailer mac", t.data[:12] + b"\0" + t.data[13:512] + t.data[544:4060] + sb.data)

def key_area(stream, sb, at):
    """A checked copy of the key slots: its head, and the slots that are not empty."""
    area = AREA_HEAD.read(stream.read(at, AREA), at)
    area.slots = [slot(area.data[i:i + 1024], at + i) for i in range(1024, AREA, 1024) if any(area.data[i:i + 1024])]
    rules("key slots", at, generation=1 <= area.generation < 1 << 32, flags=area.flags <= 1,
          key_commitment=area.key_commitment == sb.key_commitment, count=len(area.slots) == area.count >= 1)
    return area

def slot(data, at):
    s = SLOT.read(data, at)
    label(s.label, "key slots: label", at)
    argon = s.kind == PASSPHRASE  # what it costs is zero in others
    rules("key slots", at, kind=1 <= s.kind <= 4, recipient=any(s.ephemeral + s.recipient) == (s.kind == RECIPIENT),
          lanes=argon <= s.lanes <= argon * 8, memory_kib=8 * s.lanes <= s.memory_kib <= argon << 20,
          passes=argon <= s.passes <= argon << 21 and s.memory_kib * s.passes <= 1 << 21)
    return s

def base32(symbols, size):
    """The bytes that symbols stand for; the bits that fill up the last one must be zero."""
    number, spare = 0, 5 * len(symbols) - 8 * size
    need(0 <= spare < 5 and {*symbols} <= {*SYMBOLS}, "a key as text has another length, or a letter that is none")
    for symbol in symbols:
        number = number << 5 | SYMBOLS[symbol]
    need(not number & (1 << spare) - 1, "a key as text has bits behind its end")
    return (number >> spare).to_bytes(size, "big")

def recovery_code(text):
    """The 20 bytes of a code, each of its groups checked."""
    lines = "".join(line for line in text.splitlines() if not line.startswith("#"))
    symbols = [c for c in lines.upper() if c not in "- "]
    need(len(symbols) == 40 and {*symbols} <= {*SYMBOLS}, "a recovery code has 40 letters and digits")
    for group in range(8):
        *numbers, check = (SYMBOLS[c] for c in symbols[5 * group:5 * group + 5])
        total = 0
        for number in reversed(numbers):
            total = (total ^ number) << 1
            total ^= 0x25 * (total >> 5)
        need(total ^ group == check, f"recovery code: group {group + 1} is mistyped")
    return base32([c for i, c in enumerate(symbols) if i % 5 != 4], 20)

def secret_key(content):
    """The secret key of a recipient that a file holds as text; None when it holds none."""
    found = re.search(rb"(?m)^aiv-secret-(.*?)\s*$", content)
    if not found:
        return None
    data = base32(found[1].decode("ascii", "replace").upper(), 36)
    need(data[32:] == keyed_hash("text of a key", b"aiv-secret-" + data[:32])[:4], "a secret key is mistyped")
    return data[:32]

class Ring:
    """What was given to open images with: chain keys, and how secrets open slots, by their kind."""
    def __init__(self, *keys):
        self.keys, self.secrets, self.work = [*keys], [], 0

    def add(self, kind, content):
        """A secret as it lies in a file."""
        recipient = kind == KEY_FILE and secret_key(content)
        if recipient:
            kind, key = RECIPIENT, X25519PrivateKey.from_private_bytes(recipient)
        elif kind == PASSPHRASE:
            content = unicodedata.normalize("NFC", (content.splitlines() or [b""])[0].decode()).encode()
            need(1 <= len(content) <= 1024, "a passphrase has 1 to 1,024 bytes")
        elif kind == CODE:
            content = keyed_hash("recovery code", recovery_code(content.decode()))
        else:
            need(32 <= len(content) <= 65536, "a key file has 32 bytes to 64 KiB")
            content = keyed_hash("content of keyfile", content)
        self.secrets.append((kind, {
            PASSPHRASE: lambda s: hash_secret_raw(content, s.salt, s.passes, s.memory_kib, s.lanes, 32, Type.ID, 19),
            RECIPIENT: lambda s: key.exchange(X25519PublicKey.from_public_bytes(s.ephemeral)),
        }.get(kind, lambda s: content)))

    def key_for(self, sb, areas):
        """The chain key of an image with these copies of its slots; None when nothing was given to open it."""
        given = self.keys or self.secrets
        need(sb.keyed or not given, "a key was given, and this image has none: it may stand in the place of one that had",
             error=Refused)
        key = next(self.keys_for(sb, areas), None)
        need(key or not given, "nothing that was given opens this image", error=Refused)
        self.keys += [key] * (key is not None and key not in self.keys)
        return key

    def keys_for(self, sb, areas):
        yield from (key for key in self.keys if derive(key, "key commitment") == sb.key_commitment)
        for area in sorted(areas, key=lambda area: -area.generation):
            for s, (kind, opens) in itertools.product(area.slots, self.secrets):
                key = self.unwrap(s, opens, area) if kind == s.kind else None
                if key and derive(key, "key commitment") == sb.key_commitment \
                        and derive(key, "slot area mac", AREA_HEAD.covered("mac", area.data)) == area.mac:
                    yield key

    def unwrap(self, s, opens, area):
        """The key in a slot, when a secret opens it."""
        self.work += s.memory_kib * s.passes
        need(self.work <= 1 << 22, "trying all slots is too much work", error=Refused)
        try:
            words = b"aivory draft: key-encryption key" + bytes([s.kind])
            key = blake3(words + s.salt + s.ephemeral + s.recipient, key=opens(s)).digest()
            return AESGCM(key).decrypt(bytes(12), s.wrapped, s.data[:192] + area.key_commitment)
        except (InvalidTag, ValueError):
            return None
