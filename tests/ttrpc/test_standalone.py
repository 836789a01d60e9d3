"""The package stands alone: copied out under the name ``ttrpc`` it passes these tests without sandbox_nb."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_nb.ttrpc

PACKAGE = Path(sandbox_nb.ttrpc.__file__).parent
TESTS = Path(__file__).parent
OF_THE_PROJECT = {"test_generated.py", "test_standalone.py"}

CONFTEST = """
import sys

sys.modules["sandbox_nb"] = None  # from here on, importing it is an error
"""

PYTEST_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
addopts = --import-mode=importlib -p no:cacheprovider
timeout = 120
"""


def copy(source: Path, target: Path) -> None:
    """Copy a folder, and let what imports the package import it under its own name."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", *OF_THE_PROJECT))
    for file in target.rglob("*.py*"):
        file.write_text(file.read_text().replace("sandbox_nb.ttrpc", "ttrpc"))


@pytest.mark.soak  # all of its tests once more
def test_copied_out_it_passes_its_tests_with_sandbox_nb_not_importable(tmp_path: Path):
    copy(PACKAGE, tmp_path / "ttrpc")
    copy(TESTS, tmp_path / "checks")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "checks"]
    result = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout.splitlines()[-1]


def test_it_imports_nothing_but_the_standard_library_and_googles_messages():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "google", f"{file.name} imports {module}"


def test_its_public_names_are_these():
    assert sandbox_nb.ttrpc.__all__ == [
        "BidiStream",
        "Client",
        "ClientStream",
        "Code",
        "Context",
        "MapError",
        "Metadata",
        "Method",
        "ProtocolError",
        "Server",
        "ServerStream",
        "Service",
        "StatusError",
    ]
    assert all(hasattr(sandbox_nb.ttrpc, name) for name in sandbox_nb.ttrpc.__all__)
