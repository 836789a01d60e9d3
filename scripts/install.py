"""Install this checkout, editable, into the environment of the interpreter that runs this, with an extra.

The build's own requirements go in first and the build is not isolated: isolation would unpack a compiler into a
new place each time, where its cache never hits (67 s instead of 2).
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(extra: str) -> None:
    """Install the requirements of the build, then the project with ``extra``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print("installing what the build needs", flush=True)
    subprocess.run([*pip, *project["build-system"]["requires"], "editables"], check=True)
    print("building sandbox_nb and installing it with its dependencies; the first time takes minutes", flush=True)
    subprocess.run([*pip, "--no-build-isolation", "--editable", f"{ROOT}[{extra}]"], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
