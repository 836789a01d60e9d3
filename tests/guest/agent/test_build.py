"""hatch_build.py: what is compiled, and what is not compiled again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.errors import FailedPrecondition

ROOT = Path(__file__).parents[3]
NAMES = ["agent-aarch64", "agent-x86_64", "guard-aarch64", "guard-x86_64", "probe-aarch64", "probe-x86_64"]


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hatch_build"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["hatch_build"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a small agent; the compiler's cache is the real one's, which has the C library."""
    for kind in ("global", "local"):
        monkeypatch.setenv(f"ZIG_{kind.upper()}_CACHE_DIR", str(ROOT / "build" / "zig" / kind))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    agent, vm = tmp_path / "sandbox_nb/guest/agent", tmp_path / "sandbox_nb/vm"
    agent.mkdir(parents=True)
    (agent / "main.c").write_text('#include "log.h"\nint main(void) { return 0; }\n')
    (agent / "log.h").write_text("/* empty */\n")
    vm.mkdir()
    for source in (ROOT / "sandbox_nb/vm").glob("*.*"):
        if source.name.startswith(("guard.", "probe")):
            shutil.copy(source, vm)
    return tmp_path


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_only_what_has_changed_is_built_again(hook, checkout):
    out = checkout / "out"
    assert sorted(hook.build(checkout, out)) == NAMES
    assert sorted(path.name for path in out.iterdir()) == NAMES
    assert hook.build(checkout, out) == []
    append(checkout / "sandbox_nb/guest/agent/log.h", "\n/* changed */\n")
    assert sorted(hook.build(checkout, out)) == ["agent-aarch64", "agent-x86_64"]
    append(checkout / "sandbox_nb/vm/probe-x86_64.ld", "/* changed */\n")
    assert hook.build(checkout, out) == ["probe-x86_64"]
    (out / "guard-x86_64").unlink()
    assert hook.build(checkout, out) == ["guard-x86_64"]


def test_a_source_that_does_not_compile_fails_the_build_and_keeps_the_old_binary(hook, checkout):
    out = checkout / "out"
    hook.build(checkout, out)
    before = (out / "guard-x86_64").read_bytes()
    append(checkout / "sandbox_nb/vm/guard.c", "this is no C\n")
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            hook.build(checkout, out)
        assert (out / "guard-x86_64").read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_every_binary_is_static_and_of_its_architecture(name):
    elf = (binaries.FOLDER / name).read_bytes()
    machine = int.from_bytes(elf[18:20], "little")
    assert machine == {"x86_64": 62, "aarch64": 183}[name.rpartition("-")[2]]
    assert b"ld-musl" not in elf
    assert len(elf) < 192 * 1024


def test_a_binary_that_is_not_there_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(binaries, "FOLDER", tmp_path)
    for find in (binaries.guard, binaries.probe, lambda: binaries.agent("aarch64")):
        with pytest.raises(FailedPrecondition, match=r"hatch_build\.py"):
            find()
    with pytest.raises(FailedPrecondition, match="riscv64"):
        binaries.agent("riscv64")
