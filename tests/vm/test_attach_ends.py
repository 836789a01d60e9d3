"""What is attached when a machine, or what serves it, comes to a sudden end."""

from __future__ import annotations

import os
import signal
import time

import pytest
from support import alive, descendants

from sandbox_nb import Sandbox
from sandbox_nb.devices import Disk, Filesystem, UserNIC
from sandbox_nb.errors import Unavailable

from .conftest import Rig

pytestmark = pytest.mark.vm


@pytest.fixture
def own():
    """A machine of the test's own."""
    with Sandbox.started(name="own") as sandbox:
        yield Rig(sandbox)


@pytest.fixture
def others():
    """Processes of machines that other tests have."""
    return descendants(os.getpid())


def full(rig, tmp_path):
    """Attach one of each kind."""
    rig.attach(Disk("d", tmp_path / "disk", size="8M"))
    (tmp_path / "shared").mkdir()
    rig.mount(rig.attach(Filesystem("s", tmp_path / "shared")))
    rig.attach(UserNIC())
    return tmp_path / "shared"


def kill(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_with_qemu_killed_all_that_served_it_ends(others, own, tmp_path):
    full(own, tmp_path)
    folder, ours = own.folder, descendants(os.getpid()) - others
    kill(descendants(own.machine.child.pid))
    with pytest.raises(Unavailable):
        own.sandbox.run("true")
    own.sandbox.stop()
    assert not folder.exists()
    assert not alive(ours)
    # The disk is nobody's any more.
    with Sandbox.started(name="next") as sandbox:
        Rig(sandbox).attach(Disk("d", tmp_path / "disk"))


def test_a_stop_with_devices_attached_leaves_nothing(own, tmp_path):
    full(own, tmp_path)
    folder = own.folder
    own.sandbox.stop()
    assert not folder.exists()


def test_a_dead_virtiofsd_takes_its_share_with_it_and_nothing_else(own, tmp_path):
    attached = own.attach(Filesystem("s", tmp_path))
    if attached.how != "virtiofs":
        pytest.skip("no virtiofsd works for this user")
    own.mount(attached)
    kill(descendants(attached.backend._daemon.pid))
    # Whoever uses the share waits for it, as with any file server; all else goes on.
    assert own.sh("echo lives") == "lives"
    own.attach(Disk("d", tmp_path / "disk", size="8M"))
    own.disk("d")
    own.detach("d")
