"""Where images are kept: in the user's cache folder, one folder each, whole or not there at all.

An image is built in a staging folder beside the others and renamed into place when complete, under a lock that the
kernel drops when its holder dies. What a dead builder left is swept before the next one begins.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from sandbox_nb.errors import FailedPrecondition, ResourceExhausted
from sandbox_nb.guest.packages import Progress

__all__ = ["Store", "Stored"]

_MANIFEST = "image.json"
_STAGING = ".building-"
_KEEP = 4
_FORMAT = 2  # of the manifest
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Stored:
    """An image's folder and its manifest, which says what the folder holds and what it was made from."""

    folder: Path
    manifest: dict[str, Any]


class Store:
    """The images of this user."""

    def __init__(self) -> None:
        self.cache = Path(platformdirs.user_cache_dir("sandbox_nb"))
        self._images = self.cache / "images"

    def all(self) -> list[Stored]:
        """Return every whole image, the newest first."""
        folders = sorted(self._images.glob("[!.]*"), key=_mtime, reverse=True)
        return [stored for folder in folders if (stored := self.get(folder.name)) is not None]

    def get(self, name: str) -> Stored | None:
        """Return the image in the folder ``name``, None when there is none or a file of it is not whole."""
        folder = self._images / name
        try:
            manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
            whole = all((folder / file).stat().st_size == kept["size"] for file, kept in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return Stored(folder, manifest) if whole and manifest.get("format") == _FORMAT else None

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Be the only builder; while another one is, ``progress`` is called and may raise to give up.

        Raises:
            ResourceExhausted: the disk became full in the block.
            FailedPrecondition: the cache folder cannot be written.

        """
        with self._writable():
            self._images.mkdir(parents=True, exist_ok=True)
            with (self._images / ".lock").open("w") as lock:
                while not _try_lock(lock.fileno()):
                    progress("waiting for another build", 0, 0)
                    time.sleep(0.1)
                try:
                    self._sweep()
                    yield
                finally:
                    # Closed alone, it would stay locked by what the block forked and left running.
                    fcntl.flock(lock, fcntl.LOCK_UN)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder on the cache's file system, which is gone after the block."""
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._images))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def publish(self, folder: Path, name: str, manifest: dict[str, Any]) -> Stored:
        """Make the image ``name`` of the files in ``folder``, at one stroke."""
        manifest = manifest | {"format": _FORMAT}
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        folder.chmod(0o755)
        self.discard(self._images / name)
        return Stored(folder.rename(self._images / name), manifest)

    def discard(self, folder: Path) -> None:
        """Remove an image; it stops being one before its files go."""
        (folder / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def prune(self, name: str) -> None:
        """Keep the newest few folders of that name: other versions of sandbox_nb may still use them."""
        folders = sorted(self._images.glob(f"{name}-*"), key=_mtime, reverse=True)
        for folder in folders[_KEEP:]:
            self.discard(folder)

    def _sweep(self) -> None:
        """Remove folders without a manifest: staging folders, and images that were not wholly removed."""
        for folder in self._images.iterdir():
            if folder.is_dir() and not (folder / _MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _concerns(self, path: object) -> bool:
        """Whether an error's path is in the cache, or above it where it was to be made."""
        named = Path(str(path))
        return named == self.cache or named in self.cache.parents or self.cache in named.parents

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Translate what a disk may answer to a write."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(f"no space left in {self.cache}: building an image takes 1 GB") from error
            if error.errno in _REFUSALS and self._concerns(error.filename):
                raise FailedPrecondition(
                    f"the cache folder {self.cache} cannot be written ({error.strerror}: {error.filename}); "
                    "set XDG_CACHE_HOME to a folder that can"
                ) from error
            raise


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _mtime(folder: Path) -> float:
    try:
        return (folder / _MANIFEST).stat().st_mtime
    except FileNotFoundError:
        return 0.0
