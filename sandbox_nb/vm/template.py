"""Templates: a machine booted once and saved while its agent waits, to be restored for every later start.

A template is a folder with the guest's RAM (a sparse file), QEMU's state of everything else (0.3 MB, written by
``migrate`` with ``x-ignore-shared``), and a record. It is found by a key, a digest of all that went into the
machine, so that any difference is another template; and it is believed only when its record fits its files.

Clones are no twins: the vmgenid device has the guest's kernel reseed its random numbers when it wakes up, and
Setup/Configure brings entropy, clock and names of each clone's own before anything of the user runs. What they
share is what was settled before the template was saved: the addresses and canaries of the kernel and of the agent,
the pids given away so far, and an uptime that goes on from the template's.

The RAM is copied into a memfd for every machine. A memfd is a file system of its own, so neither a reflink nor
copy_file_range can save that copy; leaving holes out does. Pages the guest freed are some 15 MB of the 85 that a
base machine of 256 MiB has written. ``init_on_free=1`` makes them holes too, and was measured: 5 ms less of a
restore that takes 170, for 0.17 s more of the boot and a slower guest ever after. It is not used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAM, STATE, RECORD = "ram", "state", "template.json"

MAX_CACHE = 2 << 30
"""Bytes on disk that all templates together may take; the least recently used go first."""

MAX_AGE = 30 * 24 * 3600
"""Seconds after which an unused template goes."""

_UNFINISHED = ".new"
_TORN = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError)
"""What reading a template raises that is not whole."""
_MARK_SIZE = 16
_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)


@dataclass(frozen=True)
class Template:
    """A saved machine.

    ``inside`` leads into its folder; of one that was found to be restored, into the very folder that was judged,
    even when another has its name. ``size`` is that of its RAM in bytes, ``used`` when it was last restored, in
    seconds since the epoch, ``about`` what its key was made of.
    """

    folder: Path
    inside: Path
    size: int
    used: float
    about: dict[str, Any]

    @property
    def ram(self) -> Path:
        """The RAM's file: ``size`` bytes, and the mark that says it is whole."""
        return self.inside / RAM

    @property
    def state(self) -> Path:
        """The file ``migrate`` wrote."""
        return self.inside / STATE

    def ram_usage(self) -> int:
        """Bytes of the RAM that are no holes, which ``copy_ram`` writes. 0 when it is gone meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return self.ram.stat().st_blocks * 512
        return 0

    def disk_usage(self) -> int:
        """Bytes on disk; holes take none. 0 when it is gone meanwhile."""
        try:
            return sum(path.stat().st_blocks * 512 for path in self.inside.iterdir())
        except FileNotFoundError:
            return 0


def key(parts: dict[str, Any]) -> str:
    """The key for a machine described by ``parts``, which must be JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def find(cache: Path, name: str) -> Template | None:
    """Return the template of the key ``name`` if it is there and whole. A torn one is removed, never believed.

    What is returned is kept open, so that its RAM and its state are of one template whatever others do meanwhile.
    """
    with contextlib.ExitStack() as opened:
        template = _believed(cache / name, opened)
        if template is None:
            return None
        weakref.finalize(template, opened.pop_all().close)
    with contextlib.suppress(OSError):  # a cache we may read and not write is used as it is
        os.utime(template.inside)
    return template


def _believed(folder: Path, opened: contextlib.ExitStack) -> Template | None:
    """The template in ``folder``, which ``opened`` keeps open; None when it is gone, or torn and thus removed."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    opened.callback(os.close, fd)
    inside = Path(f"/proc/self/fd/{fd}")
    try:
        return _checked(folder, inside)
    except _TORN:
        _discard(folder, inside)
        return None
    except OSError:  # the host is short of something, which says nothing of the template
        return None


@contextlib.contextmanager
def building(cache: Path, name: str) -> Iterator[Path | None]:
    """Lend a folder to build the template ``name`` in; publish it by renaming when the block ends well.

    Yields None when somebody else is building this very template: then there is nothing to do. What a process that
    died left half-made is swept.
    """
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = cache / f".{name}{_UNFINISHED}"
    unfinished.mkdir(mode=0o700, exist_ok=True)
    with _held(unfinished) as held, contextlib.ExitStack() as undo:
        if not held:
            yield None
            return
        for left in unfinished.iterdir():
            left.unlink()
        undo.callback(shutil.rmtree, unfinished, ignore_errors=True)
        yield unfinished
        if not (cache / name).exists():
            unfinished.rename(cache / name)
            undo.pop_all()  # its old name is anybody's to build in from now on
            _sync(cache)
    prune(cache, keep=name)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder that is built in; yields whether it is ours now. However its builder ends, that unlocks it."""
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our open and our lock its builder may have published or removed what we opened.
            held = os.path.samestat(os.fstat(fd), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        yield held


def write_ram(source: int, size: int, folder: Path) -> str:
    """Write the RAM behind the descriptor ``source`` to ``folder``, leaving out what is zero; return its mark."""
    mark = secrets.token_bytes(_MARK_SIZE)
    with (folder / RAM).open("wb", buffering=0) as target, mmap.mmap(source, size, prot=mmap.PROT_READ) as ram:
        os.truncate(target.fileno(), size)
        with memoryview(ram) as view:
            for start, end in _extents(source, size):
                for offset in range(start, end, _BLOCK):
                    with view[offset : min(offset + _BLOCK, end)] as block:
                        if block != _ZEROS[: len(block)]:
                            os.pwrite(target.fileno(), block, offset)
        os.pwrite(target.fileno(), mark, size)
        os.fsync(target.fileno())
    return mark.hex()


def write_record(folder: Path, size: int, mark: str, about: dict[str, Any]) -> None:
    """Write the record, last: a template without one is not believed. ``about`` is for people to read."""
    record = {"size": size, "mark": mark, "state": _digest(folder / STATE), "about": about}
    (folder / RECORD).write_text(json.dumps(record, indent=2))
    # The power may fail right after the renaming; then the name must not be there without the content.
    for path in (folder / STATE, folder / RECORD, folder):
        _sync(path)


def copy_ram(template: Template, target: int) -> None:
    """Fill the RAM behind the descriptor ``target``; holes stay holes. Blocks: run it in a thread."""
    with template.ram.open("rb", buffering=0) as source:
        for start, end in _extents(source.fileno(), template.size):
            os.lseek(target, start, os.SEEK_SET)
            while start < end:
                sent = os.sendfile(target, source.fileno(), start, end - start)
                if sent == 0:
                    raise OSError(errno.EIO, "the file became shorter", str(template.ram))
                start += sent


def list_templates(cache: Path) -> list[Template]:
    """The whole templates, most recently used first."""
    found = []
    for folder in _published(cache):
        with contextlib.suppress(OSError, *_TORN):
            found.append(_checked(folder, folder))
    return sorted(found, key=_last_used_first)


def remove(template: Template) -> None:
    """Remove a template. Machines restored from it go on: they have their own copy."""
    _discard(template.folder, template.inside)


def unfinished(cache: Path) -> list[Path]:
    """What builders that died left half-made; ``prune`` removes it."""
    left = []
    for folder in cache.glob(f".*{_UNFINISHED}"):
        with _held(folder) as held:
            if held:
                left.append(folder)
    return left


def prune(cache: Path, *, keep: str, max_bytes: int = MAX_CACHE, max_age: float = MAX_AGE) -> list[Path]:
    """Remove templates unused for too long, and the least recently used beyond ``max_bytes``; return them.

    What is torn, and what builders that died left, is swept too: nobody may ever ask for its key again.
    """
    removed, total = [], 0
    with contextlib.ExitStack() as opened:
        whole = [found for folder in _published(cache) if (found := _believed(folder, opened)) is not None]
        for template in sorted(whole, key=_last_used_first):
            total += template.disk_usage()
            old = time.time() - template.used > max_age
            if template.folder.name != keep and (old or total > max_bytes):
                remove(template)
                removed.append(template.folder)
    for unfinished in cache.glob(f".*{_UNFINISHED}"):
        with _held(unfinished) as held:
            if held:
                shutil.rmtree(unfinished, ignore_errors=True)
    return removed


def _published(cache: Path) -> list[Path]:
    return [folder for folder in cache.iterdir() if not folder.name.startswith(".")] if cache.is_dir() else []


def _last_used_first(template: Template) -> float:
    return -template.used


def _discard(folder: Path, inside: Path) -> None:
    """Remove the folder that ``inside`` leads into, and none that was published under its name meanwhile."""
    private = folder.with_name(f".{folder.name}-{secrets.token_hex(3)}{_UNFINISHED}")
    with contextlib.suppress(OSError):
        judged = inside.stat()
        folder.rename(private)
        if os.path.samestat(private.stat(), judged):
            shutil.rmtree(private, ignore_errors=True)
        else:
            private.rename(folder)


def _checked(folder: Path, inside: Path) -> Template:
    """The template in ``folder``; raises OSError, KeyError or ValueError when it is not whole."""
    record = json.loads((inside / RECORD).read_text())
    template = Template(folder, inside, int(record["size"]), inside.stat().st_mtime, record["about"])
    if _digest(template.state) != record["state"]:
        raise ValueError("the state is not the one that was saved")
    if template.ram.stat().st_size != template.size + _MARK_SIZE:
        raise ValueError("the RAM has not the size that was saved")
    with template.ram.open("rb") as ram:
        ram.seek(template.size)
        if ram.read().hex() != record["mark"]:
            raise ValueError("the RAM is not the one that was saved")
    return template


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of ``fd`` below ``size`` that are no holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        if start >= size:
            return
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, position
