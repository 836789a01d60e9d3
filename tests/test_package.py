"""The wheel and the sdist: what is in them, and that what is installed from them works by itself."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from sandbox_nb import __version__, binaries

ROOT = Path(__file__).parents[1]
BUILT = {
    f"sandbox_nb/_bin/{name}-{arch}" for name in ("agent", "guard", "probe") for arch in binaries.ARCHITECTURES
}
BUILT |= {f"sandbox_nb/notebook/static/terminal.{suffix}" for suffix in ("js", "css")}

# What a process from outside the tree needs; a PYTHONPATH or a virtual environment would bring the tree in.
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME") if name in os.environ}


def interpreters() -> list[Path]:
    """The interpreters of this machine that are new enough, one of each version."""
    places = [Path(folder) for folder in os.get_exec_path()]
    places += sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin"))
    found: dict[tuple[int, int], Path] = {sys.version_info[:2]: Path(sys.executable)}
    for minor in range(11, 20):
        for candidate in (place / f"python3.{minor}" for place in places):
            if "shims" not in candidate.parts and os.access(candidate, os.X_OK):
                found.setdefault((3, minor), candidate)
    return [found[version] for version in sorted(found)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def unpack(wheel: Path, folder: Path) -> None:
    """Put a wheel's files where pip would, with the modes it would give them."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        for member in archive.infolist():
            (folder / member.filename).chmod(member.external_attr >> 16 & 0o777)


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist of this tree, built in this environment: nothing is downloaded."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(out)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_has_all_that_is_built_and_nothing_it_is_built_of(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= BUILT | {"sandbox_nb/py.typed", "sandbox_nb/guest/proto/process_pb2.pyi"}
    sources = (".c", ".h", ".S", ".ld", ".ts", ".mjs")
    assert [name for name in names if name.endswith(sources) or "node_modules" in name] == []
    folders = {"sandbox_nb", *(f"sandbox_nb-{__version__}.{kind}" for kind in ("dist-info", "data"))}
    assert {name.split("/")[0] for name in names} == folders


def test_installing_it_turns_its_server_extension_on(wheel):
    archive = zipfile.ZipFile(wheel)
    place = f"sandbox_nb-{__version__}.data/data/etc/jupyter/jupyter_server_config.d/sandbox_nb.json"
    (module,) = json.loads(archive.read(place))["ServerApp"]["jpserver_extensions"]
    assert f"{module.replace('.', '/')}.py" in archive.namelist()


def test_one_wheel_serves_both_architectures_and_every_python(wheel):
    assert wheel.name.startswith(f"sandbox_nb-{__version__}-py3-none-manylinux")
    for arch in binaries.ARCHITECTURES:
        assert f"manylinux_2_17_{arch}" in wheel.name
        assert f"musllinux_1_1_{arch}" in wheel.name


def test_installing_it_brings_no_compiler_and_no_node(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"sandbox_nb-{__version__}.dist-info"
    metadata = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) >= {"lab", "pool", "dev"}
    wanted = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in wanted if line.startswith(("ziglang", "nodejs", "jupyterlab", "ipykernel"))]
    assert "sandbox-nb = sandbox_nb.cli:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_the_sdist_has_the_sources_and_nothing_built(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"guest/agent/main.c", "vm/guard.c", "vm/probe-aarch64.S", "notebook/frontend/package-lock.json"}
    assert names >= {f"sandbox_nb/{name}" for name in wanted}
    assert names >= {"hatch_build.py", "hatch_frontend.py", "LICENSE", "tests/conftest.py"}
    assert not names & BUILT
    assert not [name for name in names if "node_modules" in name or name.startswith(("build/", ".venv/"))]


@pytest.mark.vm
def test_a_machine_starts_from_the_installed_wheel(wheel, tmp_path):
    """The dependencies are those of this environment; the next test fetches them."""
    venv.create(tmp_path / "env", symlinks=True)
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    unpack(wheel, packages)
    # Behind the wheel, and their .pth files, one of which points to this tree, are not read.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    python = tmp_path / "env/bin/python"
    where = run(python, "-c", "import sandbox_nb; print(sandbox_nb.__file__)", cwd=tmp_path)
    assert where.strip() == str(packages / "sandbox_nb/__init__.py")
    assert (
        run(python, "-m", "sandbox_nb", "run", "--", "echo", "from the wheel", cwd=tmp_path) == "from the wheel\n"
    )


@pytest.mark.soak
@pytest.mark.vm
@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: path.name)
def test_it_installs_into_an_empty_environment(wheel, tmp_path, interpreter):
    """pip fetches the dependencies; nothing of this environment is seen."""
    run(interpreter, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    programs = tmp_path / "env/bin"
    run(programs / "python", "-m", "pip", "install", "--disable-pip-version-check", wheel, cwd=tmp_path)
    assert run(programs / "sandbox-nb", "--version", cwd=tmp_path).strip().endswith(__version__)
    assert run(programs / "sandbox-nb", "run", "--", "echo", "from the wheel", cwd=tmp_path) == "from the wheel\n"
    run(programs / "python", "-c", "import sandbox_nb.notebook.terminal", cwd=tmp_path)
    installed = run(programs / "python", "-m", "pip", "list", cwd=tmp_path).lower()
    assert "ziglang" not in installed
    assert "nodejs" not in installed


@pytest.mark.soak
def test_a_wheel_is_built_from_the_sdist(dist, tmp_path):
    """In isolation: pip fetches hatchling, the compiler and Node."""
    (sdist,) = dist.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    (made,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(made).namelist()) >= BUILT


@pytest.mark.soak
@pytest.mark.parametrize("extra", ["pool", "lab"])
def test_the_extras_can_be_resolved(wheel, tmp_path, extra):
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    run(*pip, "--target", tmp_path, f"{wheel}[{extra}]", cwd=tmp_path)
