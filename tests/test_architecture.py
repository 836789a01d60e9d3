"""The rules of the house, read from the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_nb

ROOT = Path(sandbox_nb.__file__).parent
ROOMS = ("vm", "vsock", "ttrpc", "guest")
BOTTOM = {"errors", "devices", "options", "binaries", "rundir"}

# Protocol logic: bytes in, bytes or events out.
SANS_IO = [
    "ttrpc/frames.py",
    "ttrpc/connection.py",
    "ttrpc/events.py",
    "vsock/packet.py",
    "vsock/credit.py",
    "vsock/virtqueue.py",
    "vsock/connection.py",
    "vsock/framing.py",
    "vsock/vhost_user.py",
]
IO = {"asyncio", "socket", "os", "threading", "logging", "select", "subprocess"}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if not path.name.endswith(("_pb2.py", "_ttrpc.py")))


def imports(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, wherever in it, but for type checking alone."""
    package = [ROOT.name, *path.relative_to(ROOT).parent.parts]
    found = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(inner for child in node.body for inner in ast.walk(child))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("sandbox_nb.")}


@pytest.mark.parametrize("room", ROOMS)
def test_the_lower_rooms_know_only_the_bottom(room):
    for path in (ROOT / room).rglob("*.py"):
        known = rooms_of(imports(path)) - {room} - {"__version__"}
        assert known <= BOTTOM, f"{path.relative_to(ROOT)} imports {known - BOTTOM}"


@pytest.mark.parametrize("room", ["ttrpc", "vsock"])
def test_what_could_be_published_alone_imports_nothing_of_ours(room):
    for path in (ROOT / room).rglob("*.py"):
        assert rooms_of(imports(path)) <= {room}, path


def test_the_vsock_device_needs_the_standard_library_alone():
    for path in (ROOT / "vsock").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)} - {"sandbox_nb"}
        siblings = {neighbour.stem for neighbour in path.parent.glob("*.py")}
        assert tops <= sys.stdlib_module_names | siblings, path


@pytest.mark.parametrize("name", SANS_IO)
def test_protocol_cores_do_no_io(name):
    tops = {imported.split(".")[0] for imported in imports(ROOT / name)}
    assert not tops & IO


def test_only_the_notebook_room_imports_the_notebook():
    for path in modules():
        tops = {name.split(".")[0] for name in imports(path)}
        if path.relative_to(ROOT).parts[0] != "notebook":
            assert not tops & {"IPython", "ipywidgets", "anywidget"}, path


def test_importing_the_package_loads_neither_ipython_nor_asyncio():
    script = "import sys, sandbox_nb; print([m for m in ('IPython', 'ipywidgets', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_using_a_sandbox_loads_no_ipython():
    script = "import sys; from sandbox_nb import Sandbox; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_verb_blocks_too_but_those_that_need_the_loop():
    def verbs(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert verbs(sandbox_nb.AsyncSandbox) - verbs(sandbox_nb.Sandbox) == {
        "forwards",
        "loop",
        "open_stream",
        "spawn",
    }
    assert verbs(sandbox_nb.AsyncProcess) - verbs(sandbox_nb.Process) == {"wrap"}


def test_the_public_face_is_what_it_says():
    assert sandbox_nb.__all__ == [name for names in sandbox_nb._ROOMS.values() for name in names]
    for name in sandbox_nb.__all__:
        assert getattr(sandbox_nb, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        sandbox_nb.nothing  # noqa: B018
