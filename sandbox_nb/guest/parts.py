"""The parts of an image, read from packages or from the files that the user named."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import deb, kernel, modules
from sandbox_nb.guest.kernel import Kernel
from sandbox_nb.guest.modules import Selection

__all__ = [
    "Below",
    "Given",
    "StrPath",
    "busybox_from_packages",
    "kernel_from_files",
    "kernel_from_packages",
    "open_packages",
]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Given:
    """The parts that the user named."""

    kernel: Path | None = None
    modules: Path | None = None
    busybox: Path | None = None
    rootfs: Path | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            path = getattr(self, field.name)
            if path is not None and not path.exists():
                raise NotFound(f"{field.name}: there is nothing at {path}")
            if path is not None and not os.access(path, os.R_OK):
                raise InvalidArgument(f"{field.name}: {path} cannot be read")
        if (self.kernel is None) != (self.modules is None):
            have, lack = ("kernel", "modules") if self.modules is None else ("modules", "kernel")
            raise InvalidArgument(
                f"{have} is given without {lack}: a kernel needs its own modules, the folder lib/modules/RELEASE "
                "that `make modules_install` makes, also where everything is built in"
            )

    @classmethod
    def of(cls, *paths: StrPath | None) -> Given:
        """Return the parts named by paths of any kind, in the order of the fields."""
        return cls(*(None if path is None else Path(path) for path in paths))

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a digest that changes when one of these parts does, as make would see it; "" if none is given."""
        given = {name: path for name in names if (path := getattr(self, name)) is not None}
        lines = [f"{name} {line}" for name, path in given.items() for line in _signatures(path.resolve())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


@contextmanager
def open_packages(debs: Iterable[Path], scratch: Path) -> Iterator[Mapping[str, bytes]]:
    """Open the files of several packages as one mapping; each is read when it is asked for."""
    with ExitStack() as stack:
        members: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]] = {}
        for path in debs:
            tar = stack.enter_context(deb.open_data(path, scratch))
            members |= {_plain(member.name): (tar, member) for member in tar if member.isfile()}
        yield _TarFiles(members)


def kernel_from_packages(debs: Iterable[Path], scratch: Path, arch: str) -> tuple[Kernel, Selection]:
    """Take the kernel and its modules out of the packages they are spread over."""
    with open_packages(debs, scratch) as files:
        image = next((path for path in files if path.startswith("boot/vmlinuz-")), None)
        if image is None:
            raise InvalidArgument("the kernel's package has no boot/vmlinuz-<release> in it")
        loaded = kernel.parse(files[image], image, arch)
        return loaded, modules.select(Below(files, f"lib/modules/{loaded.release}/"), loaded.release, signed=False)


def kernel_from_files(image: Path, folder: Path, arch: str) -> tuple[Kernel, Selection]:
    """Read a kernel, and its modules from /lib/modules/<release> or a folder above that."""
    loaded = kernel.load(image, arch)
    for candidate in (folder, folder / loaded.release, folder / "lib/modules" / loaded.release):
        if candidate.resolve().name == loaded.release and candidate.is_dir():
            return loaded, modules.select(_FolderFiles(candidate), loaded.release, signed=True)
    raise NotFound(f"{folder} holds no modules of the kernel {image}, whose release is {loaded.release}")


def busybox_from_packages(debs: Iterable[Path], scratch: Path) -> bytes:
    """Take the program out of the package busybox-static."""
    with open_packages(debs, scratch) as files:
        for path in ("bin/busybox", "usr/bin/busybox"):
            if path in files:
                return files[path]
    raise InvalidArgument("the package busybox-static has no bin/busybox in it")


class Below(Mapping[str, bytes]):
    """The files of another mapping whose paths have a prefix, by the rest of their paths."""

    def __init__(self, files: Mapping[str, bytes], prefix: str) -> None:
        self._files = files
        self._paths = {path.removeprefix(prefix): path for path in files if path.startswith(prefix)}

    def __getitem__(self, path: str) -> bytes:
        return self._files[self._paths[path]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class _TarFiles(Mapping[str, bytes]):
    """Files of tars by their paths, read when asked for."""

    def __init__(self, members: Mapping[str, tuple[tarfile.TarFile, tarfile.TarInfo]]) -> None:
        self._members = members

    def __getitem__(self, path: str) -> bytes:
        tar, member = self._members[path]
        file = tar.extractfile(member)
        assert file is not None  # only regular files are in the mapping
        return file.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class _FolderFiles(Mapping[str, bytes]):
    """Files below a folder by their paths, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}

    def __getitem__(self, path: str) -> bytes:
        return self._paths[path].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _plain(name: str) -> str:
    """Return a member's path without ``./``; newer distributions put ``lib`` below ``usr``, and link to it."""
    path = name.removeprefix("./")
    return path.removeprefix("usr/") if path.startswith("usr/lib/modules/") else path


def _signatures(path: Path) -> Iterator[str]:
    """Yield a line for each file at or below ``path``: its path, size, and time of change."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = os.lstat(file)
        if not stat.S_ISDIR(status.st_mode):
            yield f"{file} {status.st_mode} {status.st_size} {status.st_mtime_ns}"
