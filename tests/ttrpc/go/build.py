"""Builds the peer that is written in Go, on the library of this system or on a newer one.

The newer one knows streams. It comes from the next release of Debian, through an apt configuration of its own that
counts no package as installed, and is unpacked into a cache folder: installing it would replace other packages.
Beside it stand its dependencies in the versions that the system's compiler can build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "peer"
SYSTEM_GOPATH = Path("/usr/share/gocode")
LIBRARY = "src/github.com/containerd/ttrpc"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sandbox_nb" / "go-ttrpc"

OLD, NEW = "bookworm", "trixie"
PACKAGES = {
    "golang-github-containerd-ttrpc-dev": NEW,
    "golang-github-golang-protobuf-1-5-dev": OLD,
    "golang-github-sirupsen-logrus-dev": OLD,
    "golang-golang-x-net-dev": OLD,
    "golang-golang-x-sys-dev": OLD,
    "golang-golang-x-text-dev": OLD,
    "golang-google-genproto-dev": OLD,
    "golang-google-grpc-dev": OLD,
    "golang-google-protobuf-dev": OLD,
}


class NotToBeHad(Exception):
    """There is no Go, or no library for it; the message says which."""


def unary(folder: Path) -> Path:
    """Build the peer on the system's library; return the program."""
    if not (SYSTEM_GOPATH / LIBRARY).is_dir():
        raise NotToBeHad("golang-github-containerd-ttrpc-dev is not installed")
    return _build(folder / "peer-unary", SYSTEM_GOPATH)


def streaming(folder: Path) -> Path:
    """Build the peer on the newer library, fetching it the first time; return the program."""
    gopath = CACHE / "usr/share/gocode"
    if not (gopath / LIBRARY).is_dir():
        _fetch()
    return _build(folder / "peer-streaming", gopath, "-tags", "streaming")


def _build(program: Path, gopath: Path, *flags: str) -> Path:
    if shutil.which("go") is None:
        raise NotToBeHad("go is not installed")
    environment = {**os.environ, "GOPATH": str(gopath), "GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run(["go", "build", *flags, "-o", program, "."], cwd=SOURCE, env=environment, check=True)
    return program


def _fetch() -> None:
    """Download the packages and unpack them into the cache, which is complete or not there."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as temporary:
        folder, root = Path(temporary), Path(temporary, "root")
        apt = ["apt-get", "-qq", *_apt_options(folder)]
        try:
            subprocess.run([*apt, "update"], check=True, capture_output=True)
            wanted = [f"{package}/{release}" for package, release in PACKAGES.items()]
            subprocess.run([*apt, "download", *wanted], cwd=folder, check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise NotToBeHad(f"apt cannot get the newer library: {error.stderr.decode().strip()}") from error
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        shutil.rmtree(CACHE, ignore_errors=True)
        root.rename(CACHE)


def _apt_options(folder: Path) -> list[str]:
    """Return what makes apt work in ``folder`` alone, on both releases, from the mirror the system uses."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    sources = folder / "sources.list"
    sources.write_text(
        "".join(f"deb [signed-by={KEYRING}] {_mirror()} {release} main\n" for release in (OLD, NEW))
    )
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Sandbox::User": "",
    }
    return [part for key, value in options.items() for part in ("-o", f"{key}={value}")]


def _mirror() -> str:
    if shutil.which("apt-get") is None or not Path(KEYRING).exists():
        raise NotToBeHad("the newer library is a package of Debian, and this is no Debian")
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Component: main"]
    for uri in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise NotToBeHad("no archive of Debian is among the sources of apt")
