"""Which packages an image is made of: resolved with the network, recorded, then read from the cache."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from sandbox_nb.errors import NotFound, Unavailable
from sandbox_nb.guest import modules, parts, rootfs
from sandbox_nb.guest.packages import Apt, Package, Progress

__all__ = ["BUSYBOX", "KERNEL", "PYTHON", "REMEDY", "Sources"]

BUSYBOX, KERNEL, PYTHON = "busybox", "kernel", "python"
"""The groups of packages; each is resolved, recorded and downloaded as one."""

REMEDY = (
    "run `sandbox-nb image build` where the packages of Debian or Ubuntu can be reached, "
    "or give the parts yourself: --kernel FILE --modules FOLDER --busybox FILE"
)

# The first that is there: Debian's generic kernel (its cloud kernel lacks 9p and vmgenid), then Ubuntu's.
_METAPACKAGES = {
    "x86_64": ("linux-image-amd64", "linux-image-virtual", "linux-image-generic"),
    "aarch64": ("linux-image-arm64", "linux-image-virtual", "linux-image-generic"),
}


class Sources:
    """The packages for images of one architecture, kept in the folder ``cache``."""

    def __init__(self, cache: Path, arch: str, progress: Progress) -> None:
        self._arch = arch
        self._folder = cache / "packages"
        self._apt = Apt(cache / "apt", arch, progress)

    def recorded(self, group: str) -> list[Package] | None:
        """Return the group as it was last fetched, None when it never was. Touches no network."""
        try:
            return [Package(**fields) for fields in json.loads(self._record(group).read_text())]
        except (OSError, ValueError, TypeError):
            return None

    def held(self, group: str) -> bool:
        """Whether every file of the group is here, whole."""
        packages = self.recorded(group)
        return packages is not None and all(map(self._apt.holds, packages))

    def files(self, group: str) -> list[Path]:
        """Return the paths of a recorded group's packages."""
        return [self._apt.archives / package.file for package in self.recorded(group) or ()]

    def fetch(self, groups: Sequence[str]) -> None:
        """Resolve ``groups`` anew, download what is not here yet, and record them.

        Raises:
            NotFound: the host has no apt.
            Unavailable: a package cannot be found or fetched.
            ResourceExhausted: the disk is full.

        """
        if not groups:
            return
        try:
            self._apt.update()
            for group in groups:
                packages = self._kernel() if group == KERNEL else self._closure(group)
                self._write(group, packages)
        except (NotFound, Unavailable) as error:
            raise type(error)(f"{error}\nTo get an image: {REMEDY}") from error
        self._sweep()

    def _closure(self, group: str) -> list[Package]:
        return self._download(["busybox-static"] if group == BUSYBOX else self._apt.closure(rootfs.PACKAGES))

    def _kernel(self) -> list[Package]:
        """Fetch the kernel that a metapackage stands for, and the packages its modules are in.

        Debian has both in one package. Ubuntu has the modules in ``linux-modules-<release>``, and less common ones
        in ``linux-modules-extra-<release>``, which is large: it is fetched only when the first lacks something.
        """
        meta = next(filter(self._apt.has, _METAPACKAGES[self._arch]), None)
        if meta is None:
            raise NotFound(f"the package sources have none of {', '.join(_METAPACKAGES[self._arch])}")
        image = next(name for name in self._apt.depends(meta) if name.startswith("linux-image-"))
        names = [image, *(name for name in self._apt.depends(image) if name.startswith("linux-modules-"))]
        packages = self._download(names)
        release = image.removeprefix("linux-image-")
        extra = f"linux-modules-extra-{release}"
        if self._apt.has(extra) and self._lacks_modules(packages, release):
            packages = self._download([*names, extra])
        return packages

    def _lacks_modules(self, packages: Iterable[Package], release: str) -> bool:
        debs = [self._apt.archives / package.file for package in packages]
        with parts.open_packages(debs, self._apt.archives) as files:
            return bool(modules.missing(parts.Below(files, f"lib/modules/{release}/")))

    def _download(self, names: Iterable[str]) -> list[Package]:
        packages = self._apt.locate(names)
        self._apt.download(packages)
        return packages

    def _write(self, group: str, packages: Iterable[Package]) -> None:
        self._folder.mkdir(exist_ok=True)
        path = self._record(group)
        new = path.with_suffix(".new")
        new.write_text(json.dumps([asdict(package) for package in packages], indent=1))
        new.replace(path)

    def _sweep(self) -> None:
        """Remove the files of packages that no record names any more."""
        records = self._folder.glob("*.json")
        named = {fields["file"] for record in records for fields in json.loads(record.read_text())}
        for path in self._apt.archives.glob("*.deb"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _record(self, group: str) -> Path:
        return self._folder / f"{group}-{self._arch}.json"
