"""The files of a split image as one stream: docs/format.md, sections 7 and 11."""

import os

from aivformat import (
    PAGE, PIECE, TAIL, FileStream, Problem, Refused, attempt, differ, layout, need, nodes, record, round_up,
    superblock, trailer, tree_root)

TRAILER = layout("""magic:8s major:H minor:H copy:B _:3s image_uuid:16s set_uuid:16s recovery_point:16s segment_no:I
    _:4s segment_start:Q slice_len:Q first_piece:Q pieces:Q file_len:Q stored_root:32s _:3916s hash:32s crc:I""")


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
    """What is at both places of one: a superblock, or the problem in its place."""
    return [attempt(lambda: superblock(stream.read(at, PAGE), at)) for at in (0, stream.length - 2 * PAGE)]


class Segment:
    """One file of a split image: its number, and where its slice lies in it and in the stream."""

    def __init__(self, stream):
        self.stream, n = stream, stream.length
        self.superblock, copy = superblocks(stream)
        lost = isinstance(self.superblock, Problem)
        self.found = [self.superblock] if lost else []
        both = [attempt(lambda: segment_trailer(stream.read(at, PAGE), number, n, at))
                for number, at in ((1, n - TAIL), (2, n - PAGE))]
        trailers = [t for t in both if not isinstance(t, Problem)]
        self.trailer = trailers[-1] if trailers else None
        if self.trailer:
            t, known = self.trailer, copy if lost else self.superblock
            self.found += [t for t in both if isinstance(t, Problem)]
            need(len(trailers) == 1 or not differ(*both, "copy hash crc"), "the two segment trailers differ", n - TAIL)
            need(not isinstance(known, Problem) and all(getattr(known, name) == getattr(t, name) for name in (
                "image_uuid", "set_uuid", "recovery_point", "segment_no", "segment_start")),
                "segment: superblock and trailer name different ones", n - PAGE)
            self.number, self.start, self.at, self.length = t.segment_no, t.segment_start, PAGE * bool(t.segment_no), \
                t.slice_len
            return
        if lost:  # the last one: the image's trailer tells the number, and by the length where the slice begins
            data = stream.read(n - PAGE, PAGE)
            t = trailer(data, 2, None, int.from_bytes(data[240:248], "little"), n - PAGE)
            self.number, start = t.segment_count - 1, t.file_len - n
        else:
            self.number, start = self.superblock.segment_no, self.superblock.segment_start - PAGE
        self.at = PAGE * (self.number > 0)
        self.start, self.length = (start + PAGE) * (self.number > 0), n - self.at


class Joined:
    """The slices of all segments, in the place of a file."""

    def __init__(self, segments):
        self.segments, self.length = sorted(segments, key=lambda s: s.number), 0
        for number, s in enumerate(self.segments):
            name, last = s.stream.path, number + 1 == len(self.segments)
            if s.number > number or last and s.trailer:
                raise Refused(f"segment {number + 1 + (s.number == number)} of the image is missing")
            need(s.number == number, f"{name}: another file is segment {s.number + 1}, too")
            need(s.start == self.length, f"{name}: it does not begin where the segment before it ends")
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
    split = [s for s in superblocks(FileStream(path)) if not isinstance(s, Problem) and s.split]
    if not split:
        return FileStream(path)
    folder = os.path.dirname(os.path.realpath(path))
    paths = {os.path.realpath(p) for p in [path, *given, *(os.path.join(folder, name) for name in os.listdir(folder))]}
    paths = [other for other in sorted(paths) if os.path.isfile(other) and os.access(other, os.R_OK)]
    return Joined([Segment(stream) for stream in map(FileStream, paths) if any(
        not isinstance(s, Problem) and s.split and s.image_uuid == split[0].image_uuid for s in superblocks(stream))])


def check_segments(image):
    """Each segment by itself, and against the image."""
    t, first = image.trailer, image.superblock
    for s in getattr(image.stream, "segments", ()):
        n, name = s.stream.length, s.stream.path
        need(not s.found, f"{name}: {s.found and s.found[0]}")
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
