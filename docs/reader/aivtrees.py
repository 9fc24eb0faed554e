"""Trees of hashes: docs/format.md, section 6."""

from aivformat import keyed_hash, le64


def state_root(sb, content_root, map_root):
    sizes = le64(sb.address_space_len) + sb.block_size.to_bytes(4, "little") + sb.sector_size.to_bytes(4, "little")
    return keyed_hash("state", sizes + content_root + map_root)


def nodes(purpose, children, width, level):
    """The nodes of one level of a tree over children of `width` bytes, one behind the other."""
    step, prefix = 128 * width, le64(level)
    return b"".join(keyed_hash(purpose, prefix + children[i:i + step]) for i in range(0, len(children), step))


def tree_root(purpose, level_1):
    """The root over the nodes of level 1."""
    level, children = 2, level_1
    while len(children) > 32:
        children, level = nodes(purpose, children, 32, level), level + 1
    return children
