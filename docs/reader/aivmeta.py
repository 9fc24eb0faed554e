"""META: what an image tells about its source, docs/format.md, section 8."""

import re
import struct

from aivformat import decode, guarded, need, rules

def table(words, **groups):
    """Tags from 1 on: the name of an item; t text, n number, A-B one between, bN bytes, or a group;
    ? for one that may be absent, * and + for a list, that may be empty or not, and the most that it may have."""
    rows = [re.fullmatch(r"(\w+):([\w-]*)([?*+]?)(\d*)", word).groups() for word in words.split()]
    return {tag: (name, groups.get(name, kind), many, int(most or 1 << 20))
            for tag, (name, kind, many, most) in enumerate(rows, 1)}

SECTIONS = {
    1: ("manifest", table("host:t set:t source:t source_id:t full:1-4294967295 increment:0-4294967295 group:b16 time_unix_ms:n "
                          "consistency:1-3 capture:1-2 comment:t")),
    2: ("disk", table("length:n sector:n physical_sector:0-4294967295 model:t serial:t wwn:t table:t table_id:t "
                      "table_problems:t*65536 regions:+8192", regions=table(
        "kind:1-4 start:n length:n entry:? volume:?",
        entry=table("number:0-4294967295 type:t unique:t name:t attributes:n boot:n"),
        volume=table("filesystem:t label:t uuid:t cluster:0-4294967295 capture:1-2 why_whole:t used:n")))),
    3: ("inventory", table("facts:*65536", facts=table("key:t value:t"))),
    4: ("source_errors", table("ranges:b16*")),
    5: ("origins", table("sessions:b12+16384")),
    6: ("specification", table("text:t")),
    8: ("excluded_files", table("patterns:t*65536 count:n bytes:n files:*65536",
                                files=table("volume_start:n path:t length:n ranges:b16*"))),
    9: ("roots", table("content:b32 map:b32 state:b32")),
    10: ("trackers", table(
        "bytes_that_mattered:b32 trackers:*64 used:?", used=table("name:t not_read:n compared:n"),
        trackers=table("kind:t name:t granularity:n depends_on:b32 marked:n places:n*64 not_marked:n?"))),
}

def items(data, names, at, depth=1):
    """One section or group as a dictionary."""
    need(depth <= 8, "META: groups nest too deep", at)
    out, place, count = {name: [] for name, *_ in names.values()}, 0, 0
    while place < len(data):
        tag, flags, size = guarded("META: an item is cut off", at, struct.error, struct.unpack_from, "<HHI", data, place)
        value, place, count = data[place + 8:place + 8 + size], place + 8 + size, count + 1
        need(place <= len(data) and count <= 1 << 20 and flags <= 1, "META: a bad item", at)
        need(tag in names or flags, f"META: unknown tag {tag}", at)
        if tag in names:
            name, kind, _, _ = names[tag]
            group = isinstance(kind, dict)
            out[name].append(items(value, kind, at, depth + 1) if group else item(value, kind, f"META: {name}", at))
    for name, kind, many, most in names.values():
        number, single = len(out[name]), many in ("", "?")
        need(number >= (many == "+" or many == "" and kind != "t"), f"META: {name} is missing", at)
        need(number <= (1 if single else most), f"META: {name} occurs {number} times", at)
        if single:
            out[name] = out[name][0] if number else "" if kind == "t" else None
    return out

def item(value, kind, title, at):
    if kind == "t":
        return guarded(title, at, UnicodeDecodeError, value.decode)
    need(len(value) == (int(kind[1:]) if kind[0] == "b" else 8), f"{title} has a bad length", at)
    if kind[0] == "b":
        return value
    number, (low, high) = int.from_bytes(value, "little"), map(int, kind.split("-") if "-" in kind else (0, 1 << 64))
    need(low <= number <= high, f"{title} is {number}", at)
    return number

def meta_of(frames, sb, at):
    """The sections that are known, and rules that join several items."""
    meta = {}
    for count, frame in enumerate(frames):
        name, names = SECTIONS.get(frame.subject, (None, None))
        rules("META", frame.at, type=frame.type == "META", count=count < 256, section=name not in meta)
        if name:
            meta[name] = items(decode(frame), names, frame.at)
    need({"manifest", "disk", "origins"} <= meta.keys(), "META: a section is missing", at)
    disk, end, excluded = meta["disk"], 0, meta.get("excluded_files", {"files": [], "count": 0})
    for region in disk["regions"]:
        rules("META: region", at, start=region["start"] == end, length=region["length"],
              kind=region["kind"] == 4 or not (region["entry"] or region["volume"]))
        end += region["length"]
    rules("META", at, roots=("roots" in meta) == ("sealed" in sb.features), table=disk["table"] in ("gpt", "mbr", "none"),
          sector=disk["sector"] == sb.sector_size, length=disk["length"] == end == sb.address_space_len,
          files=len(excluded["files"]) <= excluded["count"], places=all(
              sorted({*t["places"]}) == t["places"] for t in meta.get("trackers", {"trackers": []})["trackers"]))
    for part in [meta.get("source_errors", {"ranges": []}), *excluded["files"]]:
        end = 0
        for start, length in map(struct.Struct("<QQ").unpack, part["ranges"]):
            rules("META", at, range=start >= end and length and start + length <= sb.address_space_len)
            end = start + length
    return meta
