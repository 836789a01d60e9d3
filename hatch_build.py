"""Builds what is not Python: the guest's agent, the host's guard, the KVM probe, the terminal's front end.

A build hook of hatchling for wheels and editable installs (an sdist carries the sources), and a script that
refreshes the binaries of a checkout: ``python hatch_build.py``. The compiler is ziglang's, from PyPI; nothing is
built whose sources, flags and compiler have not changed.

The wheel's binaries are static and for both architectures, and there is no extension module: one wheel serves
every Python 3 on any Linux, glibc or musl, and no other system.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))  # hatchling loads this file by its path alone
import hatch_frontend

ARCHITECTURES = ("x86_64", "aarch64")
WHEEL_TAG = "py3-none-" + ".".join(
    f"{libc}_{arch}" for libc in ("manylinux_2_17", "musllinux_1_1") for arch in ARCHITECTURES
)
WARNINGS = (
    *("-Wall", "-Wextra", "-Wshadow", "-Wpointer-arith"),
    *("-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"),
)
C_FLAGS = ("-std=c11", "-D_GNU_SOURCE", *WARNINGS)
STATIC = ("-static", "-Os", "-flto", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s")


class Binary(NamedTuple):  # no dataclass: hatchling does not register the module, which dataclasses looks up
    """``sources`` may hold headers too: all of them are in the stamp, those the compiler takes go to it."""

    name: str
    target: str
    flags: Sequence[str]
    sources: Sequence[Path]

    @property
    def inputs(self) -> list[str]:
        """What is compiled; the rest is included by it or, a linker script, named in the flags."""
        return [str(source) for source in self.sources if source.suffix in {".c", ".S"}]

    def stamp(self, root: Path) -> str:
        """A digest of all that decides what comes out."""
        digest = hashlib.sha256(repr((version("ziglang"), self.target, *self.flags)).encode())
        for source in self.sources:
            digest.update(f"{source}\0".encode() + (root / source).read_bytes())
        return digest.hexdigest()


def binaries(root: Path) -> list[Binary]:
    """All that is to be built from the sources in ``root``."""
    package_version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    agent_folder = root / "sandbox_nb/guest/agent"
    agent = sorted(path.relative_to(root) for path in agent_folder.iterdir() if path.suffix in {".c", ".h"})
    agent_flags = (*C_FLAGS, *STATIC, f'-DAGENT_VERSION="{package_version}"')
    vm = Path("sandbox_nb/vm")
    built = []
    for arch in ARCHITECTURES:
        target = f"{arch}-linux-musl"
        built.append(Binary(f"agent-{arch}", target, agent_flags, agent))
        built.append(Binary(f"guard-{arch}", target, (*C_FLAGS, *STATIC), [vm / "guard.c"]))
        script = vm / f"probe-{arch}.ld"
        linking = ("-Wl,-e,entry", f"-Wl,-T,{script}", "-Wl,-z,max-page-size=4096", "-Wl,--build-id=none")
        probe = [vm / f"probe-{arch}.S", vm / "probe.h", script]
        built.append(
            Binary(f"probe-{arch}", f"{arch}-freestanding-none", ("-nostdlib", "-static", *linking, "-s"), probe)
        )
    return built


def build(root: Path, out: Path) -> list[str]:
    """Build what has changed into ``out`` and return its names; stamps and caches go to ``root/build``."""
    stamps = root / "build" / "stamps"
    stamps.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    stale = [binary for binary in binaries(root) if not _is_current(binary, root, out, stamps)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda binary: _compile(binary, root, out, stamps), stale))
    return [binary.name for binary in stale]


def _is_current(binary: Binary, root: Path, out: Path, stamps: Path) -> bool:
    stamp = stamps / binary.name
    return (out / binary.name).exists() and stamp.exists() and stamp.read_text() == binary.stamp(root)


def _compile(binary: Binary, root: Path, out: Path, stamps: Path) -> None:
    # The default cache is in HOME, which may be read-only or not there; a build needs no more than its own tree.
    cache = root / "build" / "zig"
    environment = os.environ | {
        "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(cache / "global")),
        "ZIG_LOCAL_CACHE_DIR": os.environ.get("ZIG_LOCAL_CACHE_DIR", str(cache / "local")),
    }
    made = root / "build" / f"{binary.name}.new"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", binary.target]
    subprocess.run([*zig, *binary.flags, "-o", made, *binary.inputs], cwd=root, env=environment, check=True)
    shutil.move(made, out / binary.name)
    (stamps / binary.name).write_text(binary.stamp(root))


class CustomBuildHook(BuildHookInterface[BuilderConfig]):
    """hatchling's side of it; which files the wheel takes is said in pyproject.toml (``artifacts``)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel collects its files. ``version`` is "standard" or "editable"."""
        root = Path(self.root)
        build(root, root / "sandbox_nb" / "_bin")
        hatch_frontend.build(root)
        if version == "standard":
            build_data["tag"] = WHEEL_TAG
            build_data["pure_python"] = True


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    names = build(here, here / "sandbox_nb" / "_bin")
    if hatch_frontend.build(here):
        names.append("the terminal's front end")
    print("built " + ", ".join(names) if names else "all is current")  # noqa: T201
