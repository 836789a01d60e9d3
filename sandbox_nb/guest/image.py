"""Images: the kernel, the initial file system and, for some, the root file system that a machine boots from.

An image is found in the cache by a key, a digest of all that it is made from. It has two layers. The parts
(kernel, modules, busybox, root) come from packages or from the user's own files and take seconds to unpack. The
agent comes with sandbox_nb and lies behind them in the initrd, so a new agent costs one copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox_nb.errors import NotFound
from sandbox_nb.guest.kernel import Kind
from sandbox_nb.guest.packages import Progress
from sandbox_nb.guest.parts import Given, StrPath
from sandbox_nb.guest.recipe import ARCHES, NAMES, Recipe
from sandbox_nb.guest.store import Store, Stored

__all__ = ["ARCHES", "NAMES", "Image", "build", "ensure", "find", "list_images", "remove"]


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
    stored = Recipe(name, arch, agent, Given(), _silent).cached()
    return None if stored is None else _image(stored)


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
    return _image(Recipe(name, arch, agent, given, progress or _silent).build(newest=True))


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
    """Return the image if it is cached; else build it, of cached packages if all are there. See ``build``."""
    given = Given.of(kernel, modules, busybox, rootfs)
    recipe = Recipe(name, arch, agent, given, progress or _silent)
    return _image(recipe.cached() or recipe.build(newest=False))


def list_images() -> list[Image]:
    """Return all images in the cache, the newest first."""
    return [_image(stored) for stored in Store().all()]


def remove(name: str) -> list[Path]:
    """Remove every image of that name from the cache and return their folders. The packages stay."""
    store = Store()
    with store.locked(_silent):
        gone = [stored.folder for stored in store.all() if stored.manifest["name"] == name]
        if not gone:
            raise NotFound(f"there is no image {name!r} in {store.cache}")
        for folder in gone:
            store.discard(folder)
    return gone


def _image(stored: Stored) -> Image:
    folder, boot, root = stored.folder, stored.manifest["boot"], stored.manifest["root"]
    return Image(
        name=stored.manifest["name"],
        arch=stored.manifest["arch"],
        folder=folder,
        kernel=folder / boot["kernel"],
        kernel_kind=boot["kernel"],
        initrd=folder / "initrd",
        root=folder / root["file"] if root["file"] else None,  # a path of the user's own is absolute, and stays so
        root_type=root["type"],
        release=boot["release"],
        digest=stored.manifest["digest"],
    )


def _silent(stage: str, done: int, total: int) -> None:
    pass
