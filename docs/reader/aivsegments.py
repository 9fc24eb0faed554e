"""The files of a split image as one stream: docs/format.md, sections 7 and 11."""

import os

from aivformat import (
    PAGE, PIECE, TAIL, Damage, FileStream, Problem, Refused, attempt, differ, layout, need, record, round_up, superblock, trailer)
from aivtrees import nodes, tree_root

TRAILER = layout("""magic:8s major:H minor:H copy:B _:3s image_uuid:16s set_uuid:16s recovery_point:16s segment_no:I _:4s
    segment_start:Q slice_len:Q first_piece:Q pieces:Q file_len:Q stored_root:32s _:3916s hash:32s crc:I""")


def segment_trailer(data, copy, n, at):
    name = f"segment trailer {copy}"
    t = record(TRAILER, data, name, at, b"AIVSEGMT", b"aiv.segt", "segment")
    need(t.clean and (t.major, t.minor, t.copy) == (0, 3, copy) and t.segment_no < 1000, f"{name}: a bad value", at)
    need(t.slice_len and t.slice_len == PIECE * t.pieces and t.segment_start == PIECE * t.first_piece
         and (t.segment_start == 0) == (t.segment_no == 0) and n == t.file_len
         == PAGE * bool(t.segment_no) + t.slice_len + round_up(32 * t.pieces, PAGE) + TAIL,
         f"{name}: its sizes do not add up to the file", at)
    return t


def superblocks(stream):
    """What is at both places of one: a superblock, or the damage in its place."""
    return [attempt(lambda at: superblock(stream.read(at, PAGE), at), at) for at in (0, stream.length - 2 * PAGE)]


class Segment:
    """One file of a split image: its number, and where its slice lies in it and in the stream."""

    def __init__(self, stream):
        self.stream, self.found, n = stream, [], stream.length
        self.superblock, self.copy = superblocks(stream)
        both = [attempt(lambda: segment_trailer(stream.read(at, PAGE), copy, n, at))
                for copy, at in ((1, n - TAIL), (2, n - PAGE))]
        trailers = [t for t in both if not isinstance(t, Problem)]
        self.found += [t for t in both if isinstance(t, Problem)]
        self.trailer = trailers[-1] if trailers else None
        if self.trailer:
            t = self.trailer
            self.number, self.start, self.length = t.segment_no, t.segment_start, t.slice_len
            self.at = PAGE * bool(self.number)
            if len(trailers) == 2 and differ(*trailers, "copy hash crc"):
                self.found.append(Damage("the two segment trailers differ", n - TAIL))
            if isinstance(self.superblock, Problem) and isinstance(self.copy, Problem):
                raise self.superblock
            known = self.copy if isinstance(self.superblock, Problem) else self.superblock
            need(all(getattr(known, name) == getattr(t, name) for name in (
                "image_uuid", "set_uuid", "recovery_point", "segment_no", "segment_start")),
                "segment: superblock and trailer name different ones", n - PAGE)
        else:  # the last one
            self.found, known = [], self.superblock
            if isinstance(known, Problem):  # its trailer tells its number, and its length where its slice begins
                data = stream.read(n - PAGE, PAGE)
                t = trailer(data, 2, None, int.from_bytes(data[240:248], "little"), n - PAGE)
                self.number, self.at = t.segment_count - 1, PAGE * (t.segment_count > 1)
                self.start, known = t.file_len - n + self.at, t
            else:
                self.number, self.at, self.start = known.segment_no, PAGE * bool(known.segment_no), known.segment_start
            self.length = n - self.at
        if isinstance(self.superblock, Problem):
            self.found.append(self.superblock)
        self.image_uuid = known.image_uuid


class Joined:
    """The slices of all segments, in the place of a file."""

    def __init__(self, segments):
        self.segments = sorted(segments, key=lambda s: s.number)
        self.length = 0
        for number, s in enumerate(self.segments):
            name, last = s.stream.path, number + 1 == len(self.segments)
            if s.number > number:
                raise Refused(f"segment {number + 1} of the image is missing")
            need(s.number == number, f"{name}: another file is segment {s.number + 1}, too")
            need(s.start == self.length, f"{name}: it does not begin where the segment before it ends")
            if last and s.trailer:
                raise Refused(f"segment {number + 2} of the image is missing")
            need(last or s.trailer, f"{name}: it ends as the last segment, and is not")
            self.length += s.length

    def read(self, at, size):
        need(0 <= at and at + size <= self.length, f"{size} bytes lie behind the end of the image", at)
        parts = []
        for s in self.segments:
            first, end = max(at, s.start), min(at + size, s.start + s.length)
            if first < end:
                parts.append(s.stream.read(s.at + first - s.start, end - first))
        return b"".join(parts)


def stream_of(path, given):
    """The bytes of the image that `path` is, or is a segment of; the others are beside it, or among those given."""
    stream = FileStream(path)
    split = [s for s in superblocks(stream) if not isinstance(s, Problem) and s.split]
    if not split:
        return stream
    folder = os.path.dirname(os.path.realpath(path))
    paths = {os.path.realpath(other) for other in [path, *given, *(os.path.join(folder, n) for n in os.listdir(folder))]}
    segments = []
    for other in sorted(other for other in paths if os.path.isfile(other)):
        one = FileStream(other)
        if any(not isinstance(s, Problem) and s.split and s.image_uuid == split[0].image_uuid for s in superblocks(one)):
            segments.append(Segment(one))
        else:
            one.file.close()
    return Joined(segments)


def check_segments(image):
    """Each segment by itself, and against the image."""
    t, first = image.trailer, image.superblock
    for s in image.stream.segments:
        n, name = s.stream.length, s.stream.path
        if s.found:
            raise s.found[0]
        need(s.number == s.superblock.segment_no and s.start == s.superblock.segment_start
             and not differ(s.superblock, first, "segment_no segment_start crc"), f"{name}: another superblock", 0)
        if s.trailer:
            need(s.stream.read(0, PAGE) == s.stream.read(n - 2 * PAGE, PAGE), f"{name}: the two superblocks differ", 0)
            need(not any(s.stream.read(n - TAIL + PAGE, 65536)), f"{name}: the gap is not zero", n - TAIL + PAGE)
            at, pieces = s.at + s.length, s.trailer.pieces
            listed = s.stream.read(at, n - TAIL - at)
            need(not any(listed[32 * pieces:]), f"{name}: padding of the stored list is not zero", at)
            listed = listed[:32 * pieces]
            need(tree_root("stored", nodes("stored", listed, 32, 1)) == s.trailer.stored_root
                 and listed == image.stream.read(t.stored_offset + 32 * s.trailer.first_piece, 32 * pieces),
                 f"{name}: another stored list", at)
