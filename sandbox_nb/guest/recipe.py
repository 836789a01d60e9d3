"""How an image is made: of which parts, under which key, and what its manifest says.

Three things make an image, and each is made anew only when its own inputs change: what boots (the kernel, its
modules and busybox), the root file system, and the agent. The first two are taken from an image that has the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
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
ARCHES = ("x86_64", "aarch64")

_LAYOUT = 5
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
        self._label = f"{name}-{arch}"
        self._agent = agent.read_bytes()
        self._given = given
        self._progress = progress
        self._store = Store()
        self._sources = Sources(self._store.cache, arch, progress)
        self._groups = self._wanted_groups()

    def cached(self) -> Stored | None:
        """Return the image if it is in the cache, made of what would be taken now. Touches no network."""
        if None in map(self._sources.recorded, self._groups):
            return None
        return self._store.get(self._folder_name())

    def build(self, *, newest: bool) -> Stored:
        """Build the image unless it is there, of the newest packages or else of those that were taken last."""
        with self._store.locked(self._progress):
            if newest or not all(map(self._sources.held, self._groups)):
                self._sources.fetch(self._groups)
            if (stored := self.cached()) is not None:
                return stored
            with self._store.staging() as staging:
                made = staging / "image"
                made.mkdir()
                manifest = self._make(made, staging)
                stored = self._store.publish(made, self._folder_name(), manifest)
            self._store.prune(self._label)
            return stored

    def _wanted_groups(self) -> list[str]:
        """Return the groups of packages that are needed for what is not given."""
        groups = [] if self._given.kernel else [KERNEL]
        if not self._given.busybox:
            groups.append(BUSYBOX)
        if self._name == "python" and not self._given.rootfs:
            groups.append(PYTHON)
        return groups

    def _make(self, made: Path, scratch: Path) -> dict[str, Any]:
        """Write the image's files and return its manifest."""
        boot = self._boot(made, scratch)
        root = self._root(made, scratch)
        files = {path.name: _describe(path) for path in sorted(made.iterdir())}
        return {
            "arch": self._arch,
            "boot": boot,
            "created_by": f"sandbox_nb {__version__}",
            "digest": _digest(files, root),
            "files": files,
            "name": self._name,
            "notes": boot["notes"] + root["notes"],
            "packages": self._versions(),
            "root": root,
        }

    def _folder_name(self) -> str:
        agent = hashlib.sha256(self._agent).hexdigest()
        return f"{self._label}-{_digest(self._boot_key(), self._root_key(), agent)[:16]}"

    def _boot_key(self) -> str:
        return self._key((KERNEL, BUSYBOX), ("kernel", "modules", "busybox"))

    def _root_key(self) -> str:
        return self._key((PYTHON, BUSYBOX), ("rootfs", "busybox"))

    def _key(self, groups: Iterable[str], given: Iterable[str]) -> str:
        """Return the digest of the packages taken of these groups and of the parts given."""
        taken = [group for group in groups if group in self._groups]
        digests = [package.digest for group in taken for package in self._sources.recorded(group) or ()]
        return _digest(_LAYOUT, self._arch, digests, self._given.fingerprint(given))

    def _versions(self) -> dict[str, str]:
        recorded = [self._sources.recorded(group) or [] for group in self._groups]
        return {package.name: package.version for packages in recorded for package in packages}

    def _boot(self, made: Path, scratch: Path) -> dict[str, Any]:
        """Write the kernel and the initrd; return what the manifest says about them."""
        key = self._boot_key()
        for stored in self._store.all():
            boot: dict[str, Any] = stored.manifest["boot"]
            if boot["key"] == key:
                _link(stored.folder / boot["kernel"], made / boot["kernel"])
                system = (stored.folder / "initrd").read_bytes()[: boot["system_size"]]
                break
        else:
            self._progress("kernel", 0, 1)
            kernel, selection = self._kernel(scratch)
            (made / kernel.kind).write_bytes(kernel.data)
            system = initrd.system_archive(self._busybox(scratch), selection)
            boot = {
                "kernel": kernel.kind,
                "key": key,
                "notes": _notes(kernel, selection),
                "release": kernel.release,
                "system_size": len(system),
            }
            self._progress("kernel", 1, 1)
        (made / "initrd").write_bytes(system + initrd.agent_archive(self._agent))
        return boot

    def _kernel(self, scratch: Path) -> tuple[Kernel, Selection]:
        if self._given.kernel is not None and self._given.modules is not None:
            return parts.kernel_from_files(self._given.kernel, self._given.modules, self._arch)
        return parts.kernel_from_packages(self._sources.files(KERNEL), scratch, self._arch)

    def _busybox(self, scratch: Path) -> bytes:
        if self._given.busybox is not None:
            return self._given.busybox.read_bytes()
        return parts.busybox_from_packages(self._sources.files(BUSYBOX), scratch)

    def _root(self, made: Path, scratch: Path) -> dict[str, Any]:
        """Write the root file system, if there is to be one; return what the manifest says about it."""
        given = self._given.rootfs
        target = made / "root.erofs"
        root: dict[str, Any] = {"file": target.name, "key": self._root_key(), "notes": [], "type": "erofs"}
        if given is None and self._name != "python":
            return root | {"file": None, "type": None}
        if given is not None and not given.is_dir():
            return root | {"file": str(given.resolve()), "type": rootfs.detect(given)}
        for stored in self._store.all():
            if stored.manifest["root"]["key"] == root["key"]:
                _link(stored.folder / target.name, target)
                return root | {"notes": stored.manifest["root"]["notes"]}
        self._progress("root", 0, 1)
        notes = self._python_root(target, scratch) if given is None else _folder_root(given, target)
        self._progress("root", 1, 1)
        return root | {"notes": notes}

    def _python_root(self, target: Path, scratch: Path) -> list[str]:
        folder = scratch / "root"
        folder.mkdir()
        rootfs.unpack(self._sources.files(PYTHON), folder, scratch)
        notes = rootfs.compile_modules(folder, self._arch)
        erofs.write(target, rootfs.entries(folder, self._busybox(scratch)))
        return notes


def _folder_root(given: Path, target: Path) -> list[str]:
    try:
        erofs.write(target, tree.walk(given, keep_owners=os.geteuid() == 0))
    except PermissionError as error:
        raise InvalidArgument(f"rootfs: {error.filename} cannot be read") from error
    return []


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
