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
from pathlib import Path
from typing import Any

import platformdirs

from sandbox_nb.errors import FailedPrecondition, ResourceExhausted
from sandbox_nb.guest.packages import Progress

__all__ = ["MANIFEST", "Store"]

MANIFEST = "image.json"
_STAGING = ".building-"
_KEEP = 4


class Store:
    """The images of this user."""

    def __init__(self) -> None:
        self.cache = Path(platformdirs.user_cache_dir("sandbox_nb"))
        self.images = self.cache / "images"

    def manifests(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield folder and manifest of each whole image, the newest first."""
        paths = sorted(self.images.glob(f"[!.]*/{MANIFEST}"), key=_mtime, reverse=True)
        for path in paths:
            if (manifest := self.manifest(path.parent)) is not None:
                yield path.parent, manifest

    def manifest(self, folder: Path) -> dict[str, Any] | None:
        """Return the manifest of the image in ``folder``, None when there is none or a file of it is not whole."""
        try:
            manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
            sizes = [(folder / name).stat().st_size == file["size"] for name, file in manifest["files"].items()]
        except (OSError, ValueError, KeyError):
            return None
        return manifest if all(sizes) else None

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Be the only builder; while another one is, ``progress`` is called and may raise to give up."""
        with self._writable():
            self.images.mkdir(parents=True, exist_ok=True)
            lock = (self.images / ".lock").open("w")
        with lock:
            while not _try_lock(lock.fileno()):
                progress("waiting for another build", 0, 0)
                time.sleep(0.1)
            with self._writable():
                self._sweep()
                yield

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Give a folder that becomes the image ``name`` when the block ends well, and is gone when it does not."""
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.images))
        try:
            yield staging
            staging.chmod(0o755)
            self.discard(self.images / name)
            staging.rename(self.images / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def discard(self, folder: Path) -> None:
        """Remove an image; it stops being one before its files go."""
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def prune(self, name: str) -> None:
        """Keep the newest few images of that name: other versions of sandbox_nb may still use them."""
        folders = [folder for folder, manifest in self.manifests() if manifest["name"] == name]
        for folder in folders[_KEEP:]:
            self.discard(folder)

    def _sweep(self) -> None:
        for left in self.images.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Translate what a disk may answer to a write."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(f"no space left in {self.cache}: building an image takes 1 GB") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
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


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
