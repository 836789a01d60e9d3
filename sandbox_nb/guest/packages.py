"""Packages of the host's distribution, fetched through an apt of our own.

Its state (lists, caches, what it takes for installed) lies in one folder of the user's; only the system's
sources, keyrings and settings are read. So nothing is installed, the system's apt is not touched, no root is
needed, and what is resolved does not depend on what the host has installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sandbox_nb.errors import NotFound, ResourceExhausted, Unavailable

__all__ = ["Apt", "Package", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and how much there is (0: not known)."""

_DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}

# Hooks of the system (docker's empties its package cache, packagekit's wakes a service) have no business here, nor
# have indexes of desktop applications, commands and file names, which are larger than the lists themselves.
_CONFIG = """\
#clear APT::Update;
#clear DPkg;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::CNF;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear APT::Architectures;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
Acquire::Languages "none";
Debug::NoLocking "1";
Dir::Cache "{folder}";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
"""

# What is taken for installed, so that nothing pulls it in: it sets packages up, which is not done here, or busybox
# does in a guest what it is wanted for.
_STATUS = """\
Package: sandbox-nb
Status: install ok installed
Architecture: {arch}
Multi-Arch: foreign
Version: 1
Provides: awk, debconf (= 99), debconf-2.0, debianutils (= 99), dpkg (= 99), openssl (= 99)
Description: assumed
"""

_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+_\S+_\S+\.deb) (?P<size>\d+) (?P<hash>\S*)")


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the archive has it; ``digest`` is ``ALGORITHM:HEX`` of its file, as signed by the archive."""

    name: str
    version: str
    file: str
    size: int
    digest: str


class Apt:
    """apt for packages of architecture ``arch`` (as uname -m says it), with all its state in ``folder``."""

    def __init__(self, folder: Path, arch: str, progress: Progress) -> None:
        self._folder = folder
        self._arch = _DEBIAN_ARCH[arch]
        self._progress = progress
        self._config = folder / "apt.conf"
        self.archives = folder / "archives"
        """Where packages lie once they are downloaded."""

    def update(self) -> None:
        """Refresh the lists of packages.

        A source that cannot be reached is no error yet: a package that is then not found will be.
        """
        if shutil.which("apt-get") is None:
            raise NotFound(
                "this host has no apt-get (it is not Debian or Ubuntu), so nothing can come from packages"
            )
        self._prepare()
        self._run("apt-get", "update", stage="package lists", total=100, check=False)

    def has(self, name: str) -> bool:
        """Whether the lists have a package of that name that can be downloaded."""
        text = self._query("apt-cache", "policy", name)
        return "Candidate: " in text and "Candidate: (none)" not in text

    def depends(self, name: str) -> list[str]:
        """Return the names of the packages that ``name`` itself depends on."""
        text = self._query("apt-cache", "depends", "--no-recommends", "--no-suggests", name)
        return re.findall(r"^ *\|?(?:Pre)?Depends: ([^<\s]+)$", text, re.MULTILINE)

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return the names of all packages that would have to be there for ``names`` to work, these included."""
        text = self._query("apt-get", "install", "--simulate", "--no-install-recommends", "--", *names)
        return sorted(re.findall(r"^Inst (\S+) ", text, re.MULTILINE))

    def locate(self, names: Iterable[str]) -> list[Package]:
        """Return what the archive has under ``names``, in the version that the system's preferences choose."""
        text = self._query("apt-get", "download", "--print-uris", "-qq", "--", *names)
        packages = []
        for match in _URI.finditer(text):
            name, version, _ = unquote(match["file"]).split("_")
            packages.append(Package(name, version, match["file"], int(match["size"]), match["hash"]))
        return sorted(packages, key=lambda package: package.name)

    def download(self, packages: Iterable[Package]) -> None:
        """Bring the files of ``packages`` into ``archives``; those that are there are not fetched again."""
        missing = [package for package in packages if not self.holds(package)]
        if not missing:
            return
        total = sum(package.size for package in missing)
        with tempfile.TemporaryDirectory(prefix="download-", dir=self._folder) as folder:
            wanted = [f"{package.name}={package.version}" for package in missing]
            self._run("apt-get", "download", "--", *wanted, stage="packages", total=total, cwd=Path(folder))
            for package in missing:
                (Path(folder) / package.file).replace(self.archives / package.file)

    def holds(self, package: Package) -> bool:
        """Whether the package's file is there, whole."""
        path = self.archives / package.file
        if not path.is_file() or path.stat().st_size != package.size:
            return False
        algorithm, _, digest = package.digest.partition(":")
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm.lower()).hexdigest() == digest

    def _prepare(self) -> None:
        for name in ("archives", "archives/partial", "lists/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").write_text(_STATUS.format(arch=self._arch))
        includes = [os.environ.get("APT_CONFIG", ""), "/etc/apt/apt.conf.d/", "/etc/apt/apt.conf"]
        lines = [f'#include "{path}";\n' for path in includes if path and Path(path).exists()]
        self._config.write_text("".join(lines) + _CONFIG.format(arch=self._arch, folder=self._folder))

    def _query(self, *command: str) -> str:
        return self._run(*command, stage="", total=0)

    def _run(self, *command: str, stage: str, total: int, check: bool = True, cwd: Path | None = None) -> str:
        """Run a program of apt's and return what it wrote; report ``stage`` as it goes when it has a total."""
        if stage:
            self._progress(stage, 0, total)
        environment = os.environ | {"APT_CONFIG": str(self._config), "LC_ALL": "C.UTF-8"}
        status, ours = os.pipe()
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            subprocess.Popen(
                [command[0], "-o", f"APT::Status-Fd={ours}", *command[1:]],
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(ours,),
            ) as process,
        ):
            try:
                os.close(ours)
                with os.fdopen(status) as lines:
                    for line in lines:
                        if stage and line.startswith("dlstatus:"):
                            self._progress(stage, int(float(line.split(":")[2]) * total / 100), total)
                process.wait()
            except BaseException:
                process.terminate()
                raise
            out.seek(0)
            err.seek(0)
            if check and process.returncode != 0:
                raise _failure(command, err.read())
            return out.read()


def _failure(command: tuple[str, ...], stderr: str) -> Exception:
    """Return the error for a program of apt's that failed."""
    lines = [line.removeprefix("E: ") for line in stderr.splitlines() if line.startswith("E: ")]
    said = "; ".join(lines) or stderr.strip() or "it said nothing"
    if "No space left on device" in stderr or "enough free space" in stderr:
        return ResourceExhausted(f"the disk is full: {said}")
    return Unavailable(f"{' '.join(command[:2])} failed: {said}")
