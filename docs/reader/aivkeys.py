"""The chain key: what is derived from it, what it decrypts, and the slots that hold it: docs/format.md, section 15."""

import unicodedata

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aivformat import SEALED, Damage, Refused, keyed_hash, label, layout, need, unpack

AREA = 32768
HEAD = layout("magic:8s generation:Q key_commitment:32s count:I flags:I _:8s mac:32s _:896s hash:32s")
SLOT = layout("""kind:B _:3s memory_kib:I passes:I lanes:I created_unix_ms:Q _:8s label:64s salt:32s ephemeral:32s
    recipient:32s wrapped:48s _:784s""")
PASSPHRASE, KEY_FILE, CODE, RECIPIENT = range(1, 5)
SYMBOLS = {c: n for n, c in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")} | {"I": 1, "L": 1, "O": 0}


def derive(key, purpose, info=b""):
    return blake3(f"aivory draft: {purpose}".ljust(32).encode() + info, key=key).digest()


class Seal:
    """How one image is protected: `sealed` or not, and its chain key or None."""

    def __init__(self, sb, key, session_tag):
        self.sealed, self.key, self.session_tag, self.ciphers = bool(sb.incompat & SEALED), key, session_tag, {}

    def decrypt(self, key, nonce, data, associated, what, at):
        if key not in self.ciphers:
            self.ciphers = {**dict(list(self.ciphers.items())[-64:]), key: AESGCM(derive(self.key, *key))}
        try:
            return self.ciphers[key].decrypt(nonce, data, associated)
        except InvalidTag:
            raise Damage(f"{what}: forged or damaged, its tag does not fit", at) from None

    def shown(self, root):
        """What stands for a root of a state in trailers and links."""
        return derive(self.key, "clear root", root) if self.sealed else root


def key_area(data, commitment, at):
    """A checked copy of the key slots: its head, and the slots that are not empty."""
    head, slots = unpack(HEAD, data[:1024]), []
    need(head.magic == b"AIVKEYS1", "key slots: no magic", at)
    need(head.hash == keyed_hash("slots", data[:992] + data[1024:]), "key slots: hash is wrong", at)
    need(head.clean and 1 <= head.generation < 1 << 32 and head.flags <= 1 and head.key_commitment == commitment,
         "key slots: a bad head", at)
    for place in range(1024, AREA, 1024):
        s = unpack(SLOT, data[place:place + 1024])
        s.bound = data[place:place + 192] + commitment
        if s.kind == 0:
            need(not any(data[place:place + 1024]), "key slots: an empty slot is not zero", at + place)
            continue
        costs, work = (s.memory_kib, s.passes, s.lanes), s.memory_kib * s.passes
        need(s.clean and s.kind <= 4 and any(s.ephemeral + s.recipient) == (s.kind == RECIPIENT),
             "key slots: a bad slot", at + place)
        need(1 <= s.lanes <= 8 and 8 * s.lanes <= s.memory_kib <= 1 << 20 and s.passes and work <= 1 << 21
             if s.kind == PASSPHRASE else not any(costs), "key slots: costs of a slot", at + place)
        label(s.label, "key slots: label", at + place)
        slots.append(s)
    need(len(slots) == head.count >= 1, "key slots: number of slots", at)
    head.slots, head.covered = slots, data[:64] + data[96:992] + data[1024:]
    return head


def base32(text, size):
    """The bytes that symbols stand for, and whether the bits that fill up the last one are zero."""
    number, spare = 0, 5 * len(text) - 8 * size
    for symbol in text:
        number = number << 5 | SYMBOLS[symbol]
    need(0 <= spare < 5 and not number & (1 << spare) - 1, "a key as text has another length")
    return (number >> spare).to_bytes(size, "big")


def recovery_code(text):
    """The 20 bytes of a code, each of its groups checked."""
    text = "".join(line for line in text.splitlines() if not line.startswith("#"))
    symbols = [c for c in text.upper() if c not in "- "]
    need(len(symbols) == 40 and set(symbols) <= SYMBOLS.keys(), "a recovery code has 40 letters and digits")
    for group in range(8):
        total, numbers = group, [SYMBOLS[c] for c in symbols[5 * group:5 * group + 5]]
        for i, number in enumerate(numbers[:4], 1):
            for _ in range(i):
                number = number << 1 ^ 0x25 * (number >> 4)
            total ^= number
        need(total == numbers[4], f"recovery code: group {group + 1} is mistyped")
    return base32([c for i, c in enumerate(symbols) if i % 5 != 4], 20)


def secret_key(content):
    """The secret key of a recipient that a file holds as text; None when it holds none."""
    prefix = b"aiv-secret-"
    line = next((one.strip() for one in content.splitlines() if one.startswith(prefix)), None)
    if line is None:
        return None
    text = line[len(prefix):].decode("ascii", "replace").upper()
    need(set(text) <= SYMBOLS.keys(), "a secret key has a letter that is none")
    data = base32(text, 36)
    need(data[32:] == keyed_hash("text", prefix + data[:32])[:4], "a secret key is mistyped")
    return data[:32]


class Ring:
    """What was given to open images with: chain keys, and secrets by the kind of slot they open."""

    def __init__(self):
        self.keys, self.secrets, self.work = [], [], 0

    def add(self, kind, content):
        """A secret as it lies in a file."""
        if kind == PASSPHRASE:
            content = unicodedata.normalize("NFC", (content.splitlines() or [b""])[0].decode()).encode()
            need(1 <= len(content) <= 1024, "a passphrase has 1 to 1,024 bytes")
        elif kind == CODE:
            content = recovery_code(content.decode())
        elif secret_key(content):
            kind, content = RECIPIENT, secret_key(content)
        else:
            need(32 <= len(content) <= 65536, "a key file has 32 bytes to 64 KiB")
        self.secrets.append((kind, content))

    def secret(self, slot, content):
        if slot.kind == PASSPHRASE:
            self.work += slot.memory_kib * slot.passes
            if self.work > 1 << 22:
                raise Refused("trying all slots is too much work")
            return hash_secret_raw(content, slot.salt, slot.passes, slot.memory_kib, slot.lanes, 32, Type.ID, 19)
        if slot.kind == RECIPIENT:
            public = X25519PublicKey.from_public_bytes(slot.ephemeral)
            return X25519PrivateKey.from_private_bytes(content).exchange(public)
        return keyed_hash("file" if slot.kind == KEY_FILE else "code", content)

    def key_for(self, sb, copies):
        """The chain key of an image with these copies of its slots; None when nothing was given to open it."""
        if not sb.keyed:
            if self.keys or self.secrets:
                raise Refused("a key was given, and this image has none: it may stand in the place of one that had")
            return None
        for key in self.keys:
            if derive(key, "key commitment") == sb.key_commitment:
                return key
        for area in sorted(copies, key=lambda area: -area.generation):
            for slot in area.slots:
                for kind, content in self.secrets:
                    key = self.unwrap(slot, content) if kind == slot.kind else None
                    if key and derive(key, "key commitment") == sb.key_commitment \
                            and derive(key, "slot area mac", area.covered) == area.mac:
                        self.keys.append(key)
                        return key
        if self.keys or self.secrets:
            raise Refused("nothing that was given opens this image")
        return None

    def unwrap(self, slot, content):
        try:
            head = b"aivory draft: key-encryption key" + bytes([slot.kind])
            kek = blake3(head + slot.salt + slot.ephemeral + slot.recipient, key=self.secret(slot, content)).digest()
            return AESGCM(kek).decrypt(bytes(12), slot.wrapped, slot.bound)
        except (InvalidTag, ValueError):
            return None
