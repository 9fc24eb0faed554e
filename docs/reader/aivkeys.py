"""The chain key: what is derived from it, what it decrypts, and the slots that hold it: docs/format.md, section 15."""
import functools, itertools, re, unicodedata
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from aivformat import Layout, Refused, guarded, keyed_hash, label, need, rules
AREA, AREA_HEAD, SLOT = 32768, Layout("KeyAreaHead", "key-slot area"), Layout("KeySlot")
PASSPHRASE, KEY_FILE, CODE, RECIPIENT = range(1, 5)
DIGITS = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZILOU", "abcdefghijklmnopqrstuv110?")  # as Python has them in base 32
def derive(key, purpose, to=b""): return blake3(f"aivory draft: {purpose}".ljust(32).encode() + to, key=key).digest()
def area_code(key, area): return derive(key, "slot area mac", AREA_HEAD.covered("mac", area.data))

class Seal:  # how one image is protected: `sealed` or not, and its chain key or None
    def __init__(self, sb, key):
        self.sealed, self.key, self.locked = "sealed" in sb.features, key, "sealed" in sb.features and not key
        self.cipher = functools.lru_cache(64)(lambda *purpose: AESGCM(derive(key, *purpose)))
    def decrypt(self, purpose, info, nonce, data, associated, at):
        return guarded(purpose, at, InvalidTag, self.cipher(purpose, info).decrypt, nonce, data, associated)
    def shown(self, root): return derive(self.key, "clear root", root) if self.sealed else root  # what stands for it
    def mac(self, t, sb):  # of a trailer, and of the superblock whichever copy was taken
        return derive(self.key, "trailer mac", t.data[:12] + b"\0" + t.data[13:512] + t.data[544:4060] + sb.data)

def key_area(stream, sb, at):  # a checked copy of the key slots: its head, and the slots that are not empty
    area, slots = AREA_HEAD.read(stream.read(at, AREA), at), []
    for place in range(1024, AREA, 1024):
        s, argon = SLOT.read(area.data[place:place + 1024], at + place), area.data[place] == PASSPHRASE
        label(s.label, "key slots: label", at + place)
        rules("key slots", at + place, kind=s.kind <= 4 and (s.kind or not any(s.data)),
              recipient=any(s.ephemeral + s.recipient) == (s.kind == RECIPIENT), lanes=argon <= s.lanes <= 8 * argon,
              memory_kib=8 * s.lanes <= s.memory_kib <= argon << 20, passes=argon <= s.passes <= argon << 21,
              work=s.memory_kib * s.passes <= 1 << 21)
        slots += [s] * (s.kind > 0)
    rules("key slots", at, generation=1 <= area.generation < 1 << 32, flags=area.flags <= 1,
          key_commitment=area.key_commitment == sb.key_commitment, count=len(slots) == area.count >= 1)
    area.slots = slots
    return area

def base32(symbols, size):  # the bytes that symbols stand for; the bits that fill up the last one must be zero
    digits, spare = symbols.translate(DIGITS), 5 * len(symbols) - 8 * size
    need(re.fullmatch("[0-9a-v]+", digits) and 0 <= spare < 5, "a key as text has another length, or wrong letters")
    need(int(digits, 32) % (1 << spare) == 0, "a key as text has bits behind its end")
    return (int(digits, 32) >> spare).to_bytes(size, "big")
def paper(content):  # the 20 bytes of a recovery code or the 32 of a paper key, each of its groups checked
    symbols = re.sub(r"(?m)^\W*#.*$|[\W_]", "", content.decode("utf-8", "replace").upper()).translate(DIGITS)
    need(re.fullmatch("[0-9a-v]{40}([0-9a-v]{25})?", symbols), "a recovery code has 40 symbols, a paper key 65")
    for group in range(len(symbols) // 5):
        *numbers, total = (int(c, 32) for c in symbols[5 * group:5 * group + 5])
        for power, number in enumerate(numbers, 1):
            for _ in range(power): number = number << 1 ^ 0x25 * (number >> 4)
            total ^= number
        need(total == group, f"group {group + 1} is mistyped")
    return base32("".join(c for i, c in enumerate(symbols) if i % 5 != 4), len(symbols) // 2)
def secret_key(content):  # the one of a recipient that a file holds as text; None when it holds none
    found = re.search(rb"(?m)^aiv-secret-(.*?)\s*$", content)
    data = found and base32(found[1].decode("ascii", "replace").upper(), 36)
    need(not data or data[32:] == keyed_hash("text of a key", b"aiv-secret-" + data[:32])[:4], "secret key: mistyped")
    return data and data[:32]

class Ring:  # what was given to open images with: chain keys, and how secrets open slots, by their kind
    def __init__(self, *keys): self.keys, self.secrets, self.work = [*keys], [], 0
    def add(self, kind, content):  # a secret as it lies in a file
        if kind == KEY_FILE and secret_key(content): kind, secret = RECIPIENT, secret_key(content)
        elif kind == PASSPHRASE:
            secret = unicodedata.normalize("NFC", (content.splitlines() or [b""])[0].decode()).encode()
            need(1 <= len(secret) <= 1024, "a passphrase has 1 to 1,024 bytes")
        elif kind == CODE and len(secret := paper(content)) == 32: return self.keys.append(secret)
        elif kind == CODE: secret = keyed_hash("recovery code", secret)
        else:
            need(32 <= len(content) <= 65536, "a key file has 32 bytes to 64 KiB")
            secret = keyed_hash("content of keyfile", content)
        self.secrets.append((kind, secret))
    def key_for(self, sb, areas):  # the chain key of an image with these copies of its slots; None without secrets
        given = self.keys or self.secrets
        need(sb.keyed or not given, "a key was given, and this image has none, as a forged one", None, Refused)
        tries = itertools.product(sorted(areas, key=lambda area: -area.generation), self.secrets, range(31))
        opened = (self.unwrap(area, area.slots[i], *secret) for area, secret, i in tries if i < len(area.slots))
        keys = (key for key in itertools.chain(self.keys, opened) if key)
        key = next((key for key in keys if derive(key, "key commitment") == sb.key_commitment), None)
        need(key or not given, "nothing that was given opens this image", error=Refused)
        self.keys += [key] * (key is not None and key not in self.keys)
        return key
    def unwrap(self, area, s, kind, secret):  # the key in a slot, when this secret opens it
        if kind != s.kind: return None
        self.work += s.memory_kib * s.passes
        need(self.work <= 1 << 22, "trying all slots is too much work", error=Refused)
        try:
            if kind == PASSPHRASE:
                secret = hash_secret_raw(secret, s.salt, s.passes, s.memory_kib, s.lanes, 32, Type.ID, 19)
            elif kind == RECIPIENT:
                public = X25519PublicKey.from_public_bytes(s.ephemeral)
                secret = X25519PrivateKey.from_private_bytes(secret).exchange(public)
            words = b"aivory draft: key-encryption key" + bytes([kind])
            key = blake3(words + s.salt + s.ephemeral + s.recipient, key=secret).digest()
            key = AESGCM(key).decrypt(bytes(12), s.wrapped, s.data[:192] + area.key_commitment)
        except (InvalidTag, ValueError): return None
        return key if area_code(key, area) == area.mac else None
