"""Devices of a machine whose owner is not root: no right is needed, and what is made belongs to the owner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import sandbox_nb
from sandbox_nb import binaries, host
from sandbox_nb.guest import image

pytestmark = [pytest.mark.vm, pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: root alone can")]

USER = 12345

SCRIPT = """
import json, sys
from pathlib import Path
from sandbox_nb import Sandbox
from sandbox_nb.devices import Disk, Filesystem, UserNIC
from sandbox_nb.vm.attach import prepare

home = Path(sys.argv[1])
devices = [
    Filesystem("s", home / "shared"),
    Filesystem("ro", home / "shared", readonly=True),
    Disk("d", home / "disk", size="32M", format="ext4"),
    UserNIC(name="n"),
]
with Sandbox.started(warm=False) as sandbox:
    machine = sandbox._asynchronous._life.running.machine
    for device in devices:
        backend = prepare(device, sandbox="s")
        sandbox.runner.wait(machine.attach(device.name, backend))
    how = [device.how for device in machine.devices]
    options = ",".join(machine.devices[0].backend.mount_options) or "rw"
    done = sandbox.run(
        f"for i in $(seq 100); do mount -t {how[0]} -o {options} s /mnt 2>/dev/null && break; sleep 0.05; done;"
        "umask 022; echo made > /mnt/root; chmod 750 /mnt/root; chmod 777 /mnt"
    )
    done = sandbox.run("umask 022; echo made > /mnt/nobody", user="nobody")
    sandbox.run("umount /mnt")
    for device in devices:
        sandbox.runner.wait(machine.detach(device.name))
print(json.dumps([how, done.stderr]))
"""


@pytest.fixture
def python():
    """A Python of our version that another user may run, and what it imports from."""
    packages = Path(sandbox_nb.__file__).parent.parent, Path(sysconfig.get_path("purelib"))
    found = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    told = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    asked = [*told, found or "false", "-c", "import sandbox_nb, qemu.qmp"]
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(str, packages))}
    if subprocess.run(asked, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run a Python with our packages here")
    return [*told, found, "-c"], environment


@pytest.fixture
def home():
    """A folder of the other user's, with the image in its cache."""
    folder = Path("/tmp") / f"sandbox_nb-user-{os.getpid()}"
    cache = folder / "cache" / "sandbox_nb"
    found = image.ensure(agent=binaries.agent("x86_64"))
    try:
        shutil.copytree(found.folder, cache / "images" / found.folder.name)
        shutil.copytree(host.cache_dir() / "packages", cache / "packages")
        for name in ("run", "shared"):
            (folder / name).mkdir(mode=0o700)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER)
        yield folder
    finally:
        shutil.rmtree(folder)


def test_everything_works_and_belongs_to_the_owner(python, home):
    told, environment = python
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_RUNTIME_DIR": str(home / "run")}
    done = subprocess.run(
        [*told, SCRIPT, home], env=environment, capture_output=True, text=True, check=False, cwd=home, timeout=100
    )
    assert done.returncode == 0, done.stderr
    how, errors = json.loads(done.stdout)
    assert errors == ""
    assert how[1:] == ["9p" if how[0] == "9p" else how[1], "qcow2", "user"]
    for name, mode in (("root", 0o750), ("nobody", 0o644)):
        found = (home / "shared" / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (USER, USER, mode)
    assert (home / "disk").stat().st_uid == USER
