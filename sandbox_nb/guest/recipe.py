"""How an image is made: from which parts, under which key, and what its manifest says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from sandbox_nb import __version__
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import erofs, initrd, parts, rootfs, tree
from sandbox_nb.guest.kernel import Kernel
from sandbox_nb.guest.modules import Selection
from sandbox_nb.guest.packages import Progress
from sandbox_nb.guest.parts import Given
from sandbox_nb.guest.sources import BUSYBOX, KERNEL, PYTHON, Sources
from sandbox_nb.guest.store import Store, Stored

__all__ = ["ARCHES", "NAMES", "Recipe"]

NAMES = ("base", "python")
ARCHES = ("x86_64",)

_LAYOUT = 3
"""Part of every key; counts up when other things are made of the same inputs (modules chosen, files in /etc …)."""


class Recipe:
    """One image to be found or built."""

    def __init__(self, name: str, arch: str, agent: Path, given: Given, progress: Progress) -> None:
        if name not in NAMES:
            raise InvalidArgument(f"there is no image {name!r}; there are {' and '.join(NAMES)}")
        if arch not in ARCHES:
            raise InvalidArgument(f"there are no images for {arch!r}; there are for {', '.join(ARCHES)}")
        self._name = name
        self._arch = arch
        self._agent = agent.read_bytes()
        self._given = given
        self._progress = progress
        self._store = Store()
        self._sources = Sources(self._store.cache, arch, progress)
        self._groups = self._wanted_groups()

    def cached(self) -> Stored | None:
        """Return the image if it is in the cache, made of what would be taken now. Touches no network."""
        parts_key = self._parts_key()
        return None if parts_key is None else self._store.get(self._folder_name(parts_key))

    def build(self, *, newest: bool) -> Stored:
        """Build the image unless it is there, of the newest packages or else of those that were taken last."""
        with self._store.locked(self._progress):
            if newest or not all(map(self._sources.held, self._groups)):
                self._sources.fetch(self._groups)
            if (stored := self.cached()) is not None:
                return stored
            parts_key = self._parts_key()
            assert parts_key is not None  # every group is recorded now
            with self._store.staging() as staging:
                made = staging / "image"
                made.mkdir()
                manifest = self._with_new_agent(made, parts_key) or self._from_parts(made, staging)
                files = {path.name: _describe(path) for path in sorted(made.iterdir())}
                manifest |= {
                    "created_by": f"sandbox_nb {__version__}",
                    "digest": _digest(files, manifest["root"]),
                    "files": files,
                    "parts": parts_key,
                }
                stored = self._store.publish(made, self._folder_name(parts_key), manifest)
            self._store.prune(self._name)
            return stored

    def _wanted_groups(self) -> list[str]:
        """Return the groups of packages that are needed for what is not given."""
        groups = [] if self._given.kernel else [KERNEL]
        if not self._given.busybox:
            groups.append(BUSYBOX)
        if self._name == "python" and not self._given.rootfs:
            groups.append(PYTHON)
        return groups

    def _parts_key(self) -> str | None:
        """Return the digest of all inputs but the agent, None when packages are wanted that were never fetched."""
        digests: list[str] = []
        for group in self._groups:
            packages = self._sources.recorded(group)
            if packages is None:
                return None
            digests += [package.digest for package in packages]
        return _digest(_LAYOUT, self._name, self._arch, digests, self._given.fingerprint())

    def _folder_name(self, parts_key: str) -> str:
        return f"{self._name}-{_digest(parts_key, hashlib.sha256(self._agent).hexdigest())[:16]}"

    def _with_new_agent(self, made: Path, parts_key: str) -> dict[str, Any] | None:
        """Take everything but the agent from an image that has the same parts, if there is one."""
        for stored in self._store.all():
            if stored.manifest["parts"] == parts_key:
                for name in stored.manifest["files"]:
                    if name != "initrd":
                        _link(stored.folder / name, made / name)
                system = (stored.folder / "initrd").read_bytes()[: stored.manifest["system_size"]]
                self._write_initrd(made, system)
                return stored.manifest
        return None

    def _from_parts(self, made: Path, scratch: Path) -> dict[str, Any]:
        self._progress("kernel", 0, 1)
        kernel, selection = self._kernel(scratch)
        (made / kernel.kind).write_bytes(kernel.data)
        self._progress("kernel", 1, 1)
        busybox = self._busybox(scratch)
        system = initrd.system_archive(busybox, selection)
        self._write_initrd(made, system)
        notes = _notes(kernel, selection)
        return {
            "arch": self._arch,
            "kernel": kernel.kind,
            "name": self._name,
            "packages": self._versions(),
            "release": kernel.release,
            "system_size": len(system),
            "notes": notes,
            **self._root(made / "root.erofs", busybox, scratch, notes),
        }

    def _kernel(self, scratch: Path) -> tuple[Kernel, Selection]:
        if self._given.kernel is not None and self._given.modules is not None:
            return parts.kernel_from_files(self._given.kernel, self._given.modules)
        return parts.kernel_from_packages(self._sources.files(KERNEL), scratch)

    def _busybox(self, scratch: Path) -> bytes:
        if self._given.busybox is not None:
            return self._given.busybox.read_bytes()
        return parts.busybox_from_packages(self._sources.files(BUSYBOX), scratch)

    def _write_initrd(self, made: Path, system: bytes) -> None:
        (made / "initrd").write_bytes(system + initrd.agent_archive(self._agent))

    def _root(self, target: Path, busybox: bytes, scratch: Path, notes: list[str]) -> dict[str, str | None]:
        """Make the root file system, if there is to be one; return what the manifest says of it, but for notes."""
        given = self._given.rootfs
        if given is not None and not given.is_dir():
            return {"root": str(given.resolve()), "root_type": rootfs.detect(given)}
        if given is None and self._name != "python":
            return {"root": None, "root_type": None}
        self._progress("root", 0, 1)
        if given is not None:
            self._copy_folder(given, target)
        else:
            notes += self._python(target, busybox, scratch)
        self._progress("root", 1, 1)
        return {"root": target.name, "root_type": "erofs"}

    def _copy_folder(self, given: Path, target: Path) -> None:
        try:
            erofs.write(target, tree.walk(given, keep_owners=os.geteuid() == 0))
        except PermissionError as error:
            raise InvalidArgument(f"rootfs: {error.filename} cannot be read") from error

    def _python(self, target: Path, busybox: bytes, scratch: Path) -> list[str]:
        folder = scratch / "root"
        folder.mkdir()
        rootfs.unpack(self._sources.files(PYTHON), folder, scratch)
        notes = rootfs.compile_modules(folder, self._arch)
        erofs.write(target, rootfs.entries(folder, busybox))
        return notes

    def _versions(self) -> dict[str, str]:
        groups = [self._sources.recorded(group) or [] for group in self._groups]
        return {package.name: package.version for group in groups for package in group}


def _notes(kernel: Kernel, selection: Selection) -> list[str]:
    """Say what this kernel could not be given."""
    notes = [f"booted as a bzImage: {kernel.note}"] if kernel.note else []
    return notes + [f"the kernel has no module {name}" for name in selection.missing]


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
