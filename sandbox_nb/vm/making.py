"""Disk images made on the host: a sparse qcow2, and a file system on one that is empty. No root is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb.devices import Disk
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound
from sandbox_nb.vm import images
from sandbox_nb.vm.images import Facts

MAX_EMPTY = 64 << 20
"""Bytes. A qcow2 that never held data is shorter: a table of 16 TiB takes 256 KiB."""

_EXT4_MAGIC_AT, _EXT4_MAGIC = 1024 + 56, b"\x53\xef"
"""s_magic in the super block (kernel, Documentation/filesystems/ext4/super.rst)."""

_PACKAGES = {"qemu-img": "qemu-utils", "mkfs.ext4": "e2fsprogs"}


@dataclass(frozen=True)
class Made:
    """What was made; ``undo`` brings back what was there before."""

    undo: Callable[[], None]


def create(what: str, path: Path, disk: Disk) -> Made:
    """Make a missing image as a sparse qcow2, with a file system if one is asked for, all at once.

    Raises NotFound when the folder or a program is missing, FailedPrecondition when it cannot be made.
    """
    assert disk.size_bytes is not None
    if not path.parent.is_dir():
        raise NotFound(f"{what}: the folder {path.parent} is not there")
    with _neighbour(what, path) as folder:
        image = folder / "image"
        _run(what, "qemu-img", "create", "-q", "-f", "qcow2", image, str(disk.size_bytes))
        if disk.format is not None:
            _format(what, image, "qcow2", disk.format, disk.size_bytes, folder)
        try:
            os.link(image, path)  # unlike a rename it replaces nothing
        except OSError as error:
            raise FailedPrecondition(f"{what} cannot be made: {error.strerror}") from error
    return Made(lambda: path.unlink(missing_ok=True))


def format_existing(what: str, path: Path, kind: str, facts: Facts) -> Made | None:
    """Make a file system on an image that holds nothing. One that holds such a file system is left as it is.

    Raises InvalidArgument when it holds something else, FailedPrecondition when it is in use.
    """
    with path.open("rb", buffering=0) as image:
        taken = images.holds_data(image, facts)
    if taken and facts.backing is None and _holds_ext4(what, path, facts):
        return None
    if taken or facts.backing is not None or facts.format not in ("raw", "qcow2"):
        raise InvalidArgument(
            f"{what} holds other data, format={kind!r} would erase it; leave format out, or name another file"
        )
    size = path.stat().st_size
    if facts.format == "qcow2" and size > MAX_EMPTY:
        raise InvalidArgument(f"{what} is empty, but {size} bytes long: it held data once; name another file")
    before = path.read_bytes() if facts.format == "qcow2" else b""
    with _neighbour(what, path) as folder:
        _format(what, path, facts.format, kind, facts.virtual_size, folder)
    return Made(lambda: _restore(path, before, size))


def _holds_ext4(what: str, path: Path, facts: Facts) -> bool:
    """Whether an image that stands alone begins with an ext4; also one that a machine has open just now."""
    with _neighbour(what, path) as folder:
        start = folder / "start"
        count = (_EXT4_MAGIC_AT + 2 + images.SECTOR - 1) // images.SECTOR
        block = ("bs=" + str(images.SECTOR), f"count={count}")
        _run(what, "qemu-img", "dd", "-U", "-f", facts.format, "-O", "raw", *block, f"if={path}", f"of={start}")
        return start.read_bytes()[_EXT4_MAGIC_AT:][:2] == _EXT4_MAGIC


def _format(what: str, image: Path, image_format: str, kind: str, size: int, folder: Path) -> None:
    """Make a file system on an empty image, by way of a sparse raw file: qemu-img minds QEMU's locks."""
    raw = folder / "raw"
    with raw.open("xb") as file:
        file.truncate(size)
    _run(what, f"mkfs.{kind}", "-q", "-F", raw)
    _run(what, "qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", image_format, raw, image)


@contextlib.contextmanager
def _neighbour(what: str, path: Path) -> Iterator[Path]:
    """A folder beside the image, on the same file system, for as long as it is worked on."""
    try:
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:100]}-")
    except OSError as error:
        raise FailedPrecondition(f"{what} cannot be made in {path.parent}: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def _restore(path: Path, before: bytes, size: int) -> None:
    path.write_bytes(before)
    os.truncate(path, size)


def _run(what: str, program: str, *arguments: str | Path) -> None:
    """Run a program to its end. Raises NotFound when it is not installed, FailedPrecondition with its words."""
    # Users' PATH has no sbin in Debian.
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise NotFound(f"{what}: {program} is not installed: sudo apt-get install {_PACKAGES[program]}")
    done = subprocess.run(
        [found, *map(str, arguments)], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise FailedPrecondition(f"{what} cannot be made: {words}")
