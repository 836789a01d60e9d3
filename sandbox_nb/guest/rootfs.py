"""The root of the image ``python``: python3 and its standard library from packages, ready to run.

Packages are only unpacked: no script of theirs runs. What those would have done and a guest needs is done here.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import deb, erofs, initrd, tree
from sandbox_nb.guest.tree import Entry

__all__ = ["PACKAGES", "compile_modules", "detect", "entries", "unpack"]

PACKAGES = ("python3", "bash", "ca-certificates", "tzdata")
"""What the root of the image ``python`` is made of, with all these need; busybox has the rest."""

# Read by people, by translators, or by package managers.
_LEFT_OUT = (
    *("usr/share/binfmts/", "usr/share/bug/", "usr/share/debconf/", "usr/share/doc/", "usr/share/doc-base/"),
    *("usr/share/info/", "usr/share/lintian/", "usr/share/locale/", "usr/share/man/", "usr/share/menu/"),
    *("usr/share/zoneinfo/posix/", "usr/share/zoneinfo/right/"),
)
_LEFT_OUT_FOLDERS = {"__pycache__", "test", "tests", "idle_test", "gconv"}
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_IMAGE_MAGIC = {"squashfs": (0, b"hsqs"), "ext4": (0x438, b"\x53\xef"), "erofs": (1024, erofs.MAGIC)}


def entries(folder: Path, busybox: bytes) -> list[Entry]:
    """Return all that is in a root made of unpacked packages, with busybox for the commands that they lack."""
    unpacked = list(tree.walk(folder, keep_owners=False))
    taken = {entry.path for entry in unpacked}
    applets = [entry for entry in initrd.busybox_entries(busybox, "usr/bin") if entry.path not in taken]
    links = [tree.symlink(name, f"usr/{name}") for name in ("bin", "lib", "lib64")]
    links += [tree.symlink("sbin", "usr/bin"), tree.symlink("usr/sbin", "bin")]
    links += [tree.symlink("usr/bin/python", "python3"), tree.directory("usr/lib/modules")]
    return [*unpacked, *applets, *links, *initrd.skeleton("/bin/bash")]


def detect(image: Path) -> str:
    """Return the type of a file system's image.

    Raises:
        InvalidArgument: it is none of those that a machine can have as its root.

    """
    with image.open("rb") as file:
        head = file.read(2048)
    for kind, (offset, magic) in _IMAGE_MAGIC.items():
        if head[offset:].startswith(magic):
            return kind
    raise InvalidArgument(f"{image} is neither a folder nor an image of {', '.join(sorted(_IMAGE_MAGIC))}")


def unpack(debs: Iterable[Path], folder: Path, scratch: Path) -> None:
    """Unpack packages into ``folder`` as a root in which /bin, /sbin and /lib are links into /usr."""
    for path in debs:
        with deb.open_data(path, scratch) as tar:
            for member in tar:
                target = _place(member.name)
                if target is not None:
                    _extract(tar, member, folder, target)
    _write_certificates(folder)


def _place(name: str) -> str | None:
    """Return where a package's file goes, None when it is left out."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or _LEFT_OUT_FOLDERS.intersection(parts):
        return None
    if parts[0] in _MERGED:
        parts = ("usr", *parts)
    if parts[:2] == ("usr", "sbin"):
        parts = ("usr", "bin", *parts[2:])
    path = "/".join(parts)
    return None if f"{path}/".startswith(_LEFT_OUT) else path


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, target: str) -> None:
    path = folder / target
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.isreg() or member.islnk():  # a hard link's content is that of the file it names
        content = tar.extractfile(member)
        assert content is not None
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(member.mode & 0o7777 | 0o400)


def _write_certificates(folder: Path) -> None:
    """Join the authorities' certificates into one file, and put it also where OpenSSL looks by default."""
    certificates = sorted((folder / "usr/share/ca-certificates").rglob("*.crt"))
    if certificates:
        bundle = folder / "etc/ssl/certs/ca-certificates.crt"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_bytes(b"".join(path.read_bytes().rstrip() + b"\n" for path in certificates))
        bundle.chmod(0o644)
        default = folder / "usr/lib/ssl/cert.pem"
        default.parent.mkdir(parents=True, exist_ok=True)
        default.symlink_to("/etc/ssl/certs/ca-certificates.crt")


def compile_modules(folder: Path, arch: str) -> list[str]:
    """Compile the standard library with the root's own python, run on the host; return why not, if it cannot be.

    Without that the guest would compile each module at each import: nobody can write to its root. The files
    compiled carry no time and are not checked against their sources, so the same packages make the same bytes.
    """
    if platform.machine() != arch:
        return [f"the standard library is not compiled: this host cannot run programs for {arch}"]
    loaders = sorted((folder / "usr/lib").glob("*/ld-linux*.so.*"))
    python = (folder / "usr/bin/python3").resolve()
    library = folder / "usr/lib" / python.name
    if not loaders or not python.exists():
        return ["the standard library is not compiled: the packages have no python3 in the usual place"]
    command = [str(loaders[0]), "--library-path", str(loaders[0].parent), str(python), "-m", "compileall", "-q"]
    options = ["--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", "/", str(library)]
    environment = {"PYTHONHOME": str(folder / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *options], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 0:
        return []
    said = (done.stderr or done.stdout).decode(errors="replace").strip()
    return [f"the standard library is not wholly compiled: {said}"]
