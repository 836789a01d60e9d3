from __future__ import annotations

import os

import pytest

from sandbox_nb.bench import vsock_peer
from vsock.rig import Rig


@pytest.fixture
def folder(tmp_path_factory):
    """A folder with a short path, for sockets."""
    return tmp_path_factory.mktemp("v")


@pytest.fixture
def rig(folder):
    """A started device with a well-behaved guest, all in this process."""
    before = len(os.listdir("/proc/self/fd"))
    with Rig(folder) as made:
        made.start()
        yield made
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def rigs(folder):
    """Makes rigs with options of a test's own, not yet started."""
    before = len(os.listdir("/proc/self/fd"))
    made = []

    def make(**options):
        (folder / str(len(made))).mkdir()
        made.append(Rig(folder / str(len(made)), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="package")
def machine():
    """A real machine with the guest program and one device: (machine, device)."""
    with vsock_peer.running() as pair:
        yield pair
