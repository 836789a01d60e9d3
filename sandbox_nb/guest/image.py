"""Images: the kernel, the initial file system and, for some, the root file system that a machine boots from.

An image is found in the cache by a key, a digest of all that it is made from. It has two layers. The parts
(kernel, modules, busybox, root) come from packages or from the user's own files and take seconds to unpack. The
agent comes with sandbox_nb and lies behind them in the initrd, so a new agent costs one copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import initrd, parts
from sandbox_nb.guest.kernel import Kernel, Kind
from sandbox_nb.guest.modules import Selection
from sandbox_nb.guest.packages import Progress
from sandbox_nb.guest.parts import Given, StrPath
from sandbox_nb.guest.sources import BUSYBOX, KERNEL, PYTHON, Sources
from sandbox_nb.guest.store import MANIFEST, Store

__all__ = ["ARCHES", "NAMES", "Image", "build", "ensure", "find", "list_images", "remove"]

NAMES = ("base", "python")
ARCHES = ("x86_64",)

_LAYOUT = 1
"""Part of every key; counts up when other things are made of the same inputs (modules chosen, files in /etc …)."""


@dataclass(frozen=True)
class Image:
    """What a machine boots; ``root`` is None for ``base``. ``digest`` is that of the files' contents."""

    name: str
    arch: str
    folder: Path
    kernel: Path
    kernel_kind: Kind
    initrd: Path
    root: Path | None
    root_type: str | None
    release: str
    digest: str


def find(name: str = "base", *, arch: str = "x86_64", agent: Path) -> Image | None:
    """Return the cached image made of this agent and of the packages last fetched. Touches no network."""
    return _Recipe(name, arch, agent, Given(), _silent).cached()


def build(
    name: str = "base",
    *,
    arch: str = "x86_64",
    agent: Path,
    kernel: StrPath | None = None,
    modules: StrPath | None = None,
    busybox: StrPath | None = None,
    rootfs: StrPath | None = None,
    progress: Progress | None = None,
) -> Image:
    """Build an image from the files given and, for what is not given, the newest packages.

    Args:
        name: one of NAMES.
        arch: one of ARCHES.
        agent: the guest's agent, a static binary for that architecture.
        kernel: a bzImage or vmlinux; ``modules`` must be given too.
        modules: the folder lib/modules/<release> of that kernel, or one above it.
        busybox: a static busybox.
        rootfs: a folder, or an erofs, squashfs or ext4 image, which stays where it is.
        progress: called with a stage, how much of it is done and how much there is; what it raises ends the build.

    Raises:
        InvalidArgument: a file given is not what it should be.
        NotFound: a file given is not there, or parts are to come from packages and the host has no apt.
        Unavailable: packages cannot be fetched.
        ResourceExhausted: the disk is full.
        FailedPrecondition: the cache folder cannot be written.

    """
    given = Given.of(kernel, modules, busybox, rootfs)
    return _Recipe(name, arch, agent, given, progress or _silent).build(newest=True)


def ensure(
    name: str = "base",
    *,
    arch: str = "x86_64",
    agent: Path,
    kernel: StrPath | None = None,
    modules: StrPath | None = None,
    busybox: StrPath | None = None,
    rootfs: StrPath | None = None,
    progress: Progress | None = None,
) -> Image:
    """Return the image if it is cached; else build it, if it can be from cached packages. See ``build``."""
    given = Given.of(kernel, modules, busybox, rootfs)
    recipe = _Recipe(name, arch, agent, given, progress or _silent)
    return recipe.cached() or recipe.build(newest=False)


def list_images() -> list[Image]:
    """Return all images in the cache, the newest first."""
    return [_image(folder, manifest) for folder, manifest in Store().manifests()]


def remove(name: str) -> list[Path]:
    """Remove every image of that name from the cache and return their folders. Packages stay."""
    store = Store()
    gone = [folder for folder, manifest in store.manifests() if manifest["name"] == name]
    if not gone:
        raise NotFound(f"there is no image {name!r} in {store.images}")
    with store.locked(_silent):
        for folder in gone:
            store.discard(folder)
    return gone


class _Recipe:
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
        self._groups = _groups(name, given)

    def cached(self) -> Image | None:
        """Return the image if it is in the cache, made of what would be taken now."""
        parts_key = self._parts_key()
        if parts_key is None:
            return None
        folder = self._store.images / self._folder_name(parts_key)
        manifest = self._store.manifest(folder)
        return None if manifest is None else _image(folder, manifest)

    def build(self, *, newest: bool) -> Image:
        """Build the image unless it is there, from the newest packages or from those that were taken last."""
        with self._store.locked(self._progress):
            if newest or not all(map(self._sources.held, self._groups)):
                self._sources.fetch(self._groups)
            if (image := self.cached()) is not None:
                return image
            parts_key = self._parts_key()
            assert parts_key is not None  # every group is recorded now
            name = self._folder_name(parts_key)
            with self._store.staging(name) as staging:
                manifest = self._with_new_agent(staging, parts_key) or self._from_parts(staging)
                self._finish(staging, manifest, parts_key)
            self._store.prune(self._name)
            folder = self._store.images / name
            return _image(folder, json.loads((folder / MANIFEST).read_text()))

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

    def _with_new_agent(self, staging: Path, parts_key: str) -> dict[str, Any] | None:
        """Take everything but the agent from an image that has the same parts, if there is one."""
        for folder, manifest in self._store.manifests():
            if manifest["parts"] == parts_key:
                for name in manifest["files"]:
                    if name != "initrd":
                        _link(folder / name, staging / name)
                system = (folder / "initrd").read_bytes()[: manifest["system_size"]]
                self._write_initrd(staging, system)
                return manifest
        return None

    def _from_parts(self, staging: Path) -> dict[str, Any]:
        self._progress("kernel", 0, 1)
        kernel, selection = self._kernel(staging)
        self._progress("kernel", 1, 1)
        (staging / kernel.kind).write_bytes(kernel.data)
        system = initrd.system_archive(self._busybox(staging), selection)
        self._write_initrd(staging, system)
        return {
            "name": self._name,
            "arch": self._arch,
            "release": kernel.release,
            "kernel": kernel.kind,
            "root": None,
            "root_type": None,
            "system_size": len(system),
            "packages": {
                package.name: package.version
                for group in self._groups
                for package in self._sources.recorded(group) or ()
            },
            "notes": _notes(kernel, selection),
        }

    def _kernel(self, scratch: Path) -> tuple[Kernel, Selection]:
        if self._given.kernel is not None and self._given.modules is not None:
            return parts.kernel_from_files(self._given.kernel, self._given.modules)
        return parts.kernel_from_packages(self._sources.files(KERNEL), scratch)

    def _busybox(self, scratch: Path) -> bytes:
        if self._given.busybox is not None:
            return self._given.busybox.read_bytes()
        return parts.busybox_from_packages(self._sources.files(BUSYBOX), scratch)

    def _write_initrd(self, staging: Path, system: bytes) -> None:
        (staging / "initrd").write_bytes(system + initrd.agent_archive(self._agent))

    def _finish(self, staging: Path, manifest: dict[str, Any], parts_key: str) -> None:
        """Write the manifest, whose presence makes a folder an image."""
        names = sorted(path.name for path in staging.iterdir())
        files = {name: _file(staging / name) for name in names}
        manifest |= {"parts": parts_key, "files": files, "digest": _digest(files, manifest["root"])}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _groups(name: str, given: Given) -> list[str]:
    """Return the groups of packages that are needed for what is not given."""
    groups = [] if given.kernel else [KERNEL]
    if not given.busybox:
        groups.append(BUSYBOX)
    if name == "python" and not given.rootfs:
        groups.append(PYTHON)
    return groups


def _notes(kernel: Kernel, selection: Selection) -> list[str]:
    """Say what this kernel could not be given."""
    notes = [f"booted as a bzImage: {kernel.note}"] if kernel.note else []
    return notes + [f"the kernel has no module {name}" for name in selection.missing]


def _image(folder: Path, manifest: dict[str, Any]) -> Image:
    root = manifest["root"]
    return Image(
        name=manifest["name"],
        arch=manifest["arch"],
        folder=folder,
        kernel=folder / manifest["kernel"],
        kernel_kind=manifest["kernel"],
        initrd=folder / "initrd",
        root=folder / root if root else None,  # a path of the user's own is absolute, and stays as it is
        root_type=manifest["root_type"],
        release=manifest["release"],
        digest=manifest["digest"],
    )


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _silent(stage: str, done: int, total: int) -> None:
    pass
