"""Writing EROFS, the read-only file system of a machine's root (Documentation/filesystems/erofs.rst, erofs_fs.h).

The image is one run of 4 KiB blocks. The superblock lies at byte 1024 of the first. Behind it come the inodes, in
slots of 32 bytes by whose number (nid) directories name them, each with the tail of its data right behind it when
both fit into one block. Behind the inodes lie the data's whole blocks. Nothing is compressed.

mkfs.erofs would do, but hosts need not have it, and without root it can give files to one owner only.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest.tree import Entry, directory

__all__ = ["MAGIC", "write"]

MAGIC = struct.pack("<I", 0xE0F5E1E2)
"""What the superblock, at byte 1024, begins with."""

_BLOCK = 4096
_SLOT = 32
_FIRST_NID = (1024 + 128) // _SLOT  # behind the superblock

# magic, checksum, compatible features, log2 of the block size, extra slots, root's nid, inodes, time in s and
# ns, blocks, first block of inodes, of xattrs, uuid, name, incompatible features; then what none of these
# features needs
_SUPERBLOCK = struct.Struct("<4sIIBBHQQIIII16s16sI44x")
# format, xattrs, mode, size, first block, inode number, uid, gid, mtime in s and ns, links
_INODE = struct.Struct("<HHH2xQIIIIQII16x")
_DIRENT = struct.Struct("<QHBx")  # nid, where in the block the name begins, type

_EXTENDED = 1  # bit 0 of an inode's format: it takes 64 bytes
_FLAT_PLAIN, _FLAT_INLINE = 0 << 1, 2 << 1  # bits 1 to 3: where the data is
_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 7}
_TIME = 946_684_800  # 2000-01-01: all files have it, so that the same files make the same image


class _Node:
    """An inode: its entry, and what the layout gave it."""

    def __init__(self, entry: Entry, parent: _Node | None) -> None:
        self.entry = entry
        self.parent = parent or self
        self.children: dict[bytes, _Node] = {}
        self.nid = 0
        self.size = entry.size
        self.first_block = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.entry.mode)

    @property
    def links(self) -> int:
        return 2 + sum(child.is_directory for child in self.children.values()) if self.is_directory else 1

    @property
    def tail(self) -> int:
        """How many bytes of the data lie behind the inode."""
        tail = self.size % _BLOCK
        return tail if _INODE.size + tail <= _BLOCK else 0

    def names(self) -> list[tuple[bytes, _Node]]:
        """Return the directory's entries in the order that a search in them expects."""
        return sorted([(b".", self), (b"..", self.parent), *self.children.items()], key=lambda pair: pair[0])

    def walk(self) -> Iterator[_Node]:
        """Yield the node and all below it."""
        yield self
        for _, child in sorted(self.children.items()):
            yield from child.walk()


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write the file system that holds ``entries``. Of two with one path the later counts; parents are added."""
    root = _tree(entries)
    nodes = list(root.walk())
    for node in nodes:
        if node.is_directory:
            node.size = len(_directory(node))
    blocks = _lay_out(nodes)
    with path.open("wb") as out:
        out.truncate(blocks * _BLOCK)
        out.seek(1024)
        out.write(
            _SUPERBLOCK.pack(
                *(MAGIC, 0, 0, _BLOCK.bit_length() - 1, 0, root.nid, len(nodes), _TIME, 0, blocks, 0, 0),
                *(bytes(16), bytes(16), 0),
            )
        )
        for number, node in enumerate(nodes, start=1):
            _write_node(out, node, number)


def _tree(entries: Iterable[Entry]) -> _Node:
    root = _Node(directory("."), None)
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        if not parts:
            root.entry = entry
            continue
        folder = root
        for part in parts[:-1]:
            name = part.encode("utf-8", "surrogateescape")
            folder = folder.children.setdefault(name, _Node(directory(part), folder))
        node = _Node(entry, folder)
        name = parts[-1].encode("utf-8", "surrogateescape")
        if (replaced := folder.children.get(name)) is not None and node.is_directory:
            replaced.entry = entry  # keeps what is in it
        else:
            folder.children[name] = node
    return root


def _lay_out(nodes: Iterable[_Node]) -> int:
    """Give every node its place and return how many blocks there are."""
    at = _FIRST_NID * _SLOT
    for node in nodes:
        room = _INODE.size + node.tail
        if at % _BLOCK + room > _BLOCK:  # neither an inode nor its tail crosses into another block
            at += -at % _BLOCK
        node.nid = at // _SLOT
        at += room + -room % _SLOT
    block = -(-at // _BLOCK)
    for node in nodes:
        if whole := (node.size - node.tail + _BLOCK - 1) // _BLOCK:
            node.first_block = block
            block += whole
    return block


def _write_node(out: IO[bytes], node: _Node, number: int) -> None:
    entry = node.entry
    layout = _FLAT_INLINE if node.tail else _FLAT_PLAIN
    out.seek(node.nid * _SLOT)
    out.write(
        _INODE.pack(
            *(_EXTENDED | layout, 0, entry.mode, node.size, node.first_block, number),
            *(entry.uid, entry.gid, _TIME, 0, node.links),
        )
    )
    with _open_content(node) as content:
        tail_at = out.tell()
        out.seek(node.first_block * _BLOCK)
        _copy(content, out, node.size - node.tail)
        out.seek(tail_at)
        _copy(content, out, node.tail)


def _open_content(node: _Node) -> IO[bytes]:
    if node.is_directory:
        return io.BytesIO(_directory(node))
    content = node.entry.content
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _copy(source: IO[bytes], sink: IO[bytes], size: int) -> None:
    while size > 0:
        chunk = source.read(min(size, 1 << 20))
        if not chunk:
            raise InvalidArgument(f"{getattr(source, 'name', 'a file')} became shorter while it was read")
        sink.write(chunk)
        size -= len(chunk)


def _directory(node: _Node) -> bytes:
    """Return a directory's data. In each block: its dirents, then their names, one behind the other."""
    out = bytearray()
    for block in _blocks(node):
        out += bytes(-len(out) % _BLOCK)
        at = _DIRENT.size * len(block)
        for name, child in block:
            out += _DIRENT.pack(child.nid, at, _TYPES[stat.S_IFMT(child.entry.mode)])
            at += len(name)
        out += b"".join(name for name, _ in block)
    return bytes(out)


def _blocks(node: _Node) -> Iterator[list[tuple[bytes, _Node]]]:
    """Split a directory's entries into what fits into each block."""
    block: list[tuple[bytes, _Node]] = []
    room = _BLOCK
    for name, child in node.names():
        need = _DIRENT.size + len(name)
        if need > room:
            yield block
            block, room = [], _BLOCK
        block.append((name, child))
        room -= need
    yield block
