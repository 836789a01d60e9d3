"""A real machine whose devices come and go, below the verbs of a sandbox."""

from __future__ import annotations

import contextlib

import pytest
from support import qemu_as_who_we_are

from sandbox_nb import Sandbox
from sandbox_nb.devices import named
from sandbox_nb.vm.attach import prepare


class Rig:
    """A machine, and what a test does with it."""

    def __init__(self, sandbox):
        self.sandbox = sandbox

    @property
    def machine(self):
        return self.sandbox._asynchronous._life.running.machine

    @property
    def folder(self):
        return self.machine._attachments._host.folder

    @property
    def guard(self):
        return self.machine._attachments._host.guard

    def wait(self, work):
        return self.sandbox.runner.wait(work)

    def attach(self, device):
        device = named(device, [found.name for found in self.machine.devices])
        backend = prepare(device, sandbox="rig")
        try:
            return self.wait(self.machine.attach(device.name, backend))
        except BaseException:
            backend.discard()
            raise

    def detach(self, name):
        self.wait(self.machine.detach(name))

    def sh(self, command, **keywords):
        """Run a command that must succeed; what it said."""
        done = self.sandbox.run(command, **keywords)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip() if isinstance(done.stdout, str) else done.stdout

    def until(self, test):
        """Wait in the guest until a shell test holds: devices come a moment after device_add answers."""
        self.sh(f"for i in $(seq 100); do {test} && break; sleep 0.05; done; {test}")

    def disk(self, serial):
        """The guest's name for the disk with a serial number."""
        self.until(f"grep -qsx {serial} /sys/block/vd*/serial")
        return "/dev/" + self.sh(f"grep -lx {serial} /sys/block/vd*/serial | cut -d/ -f4")

    def interface(self, mac):
        """The guest's name for the interface with an address."""
        self.until(f"grep -qsx {mac} /sys/class/net/*/address")
        return self.sh(f"grep -lx {mac} /sys/class/net/*/address | cut -d/ -f5")

    def mount(self, attached, where="/mnt", without=()):
        """Mount a share, with its options but for those in ``without``."""
        options = ",".join(option for option in attached.backend.mount_options if option not in without) or "rw"
        mounting = f"mount -t {attached.how} -o {options} {attached.name} {where} 2>/dev/null"
        self.until(f"{{ grep -q ' {where} ' /proc/mounts || {mounting}; }}")


@pytest.fixture(scope="module")
def rig():
    """A machine for the tests of a module; each leaves it with nothing attached."""
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox("rig"))
        with qemu_as_who_we_are():
            sandbox.start()
        yield Rig(sandbox)


@pytest.fixture
def machine(rig):
    """The module's machine, with nothing attached before and after the test."""
    yield rig
    rig.sandbox.run("umount /mnt")
    for device in rig.machine.devices:
        rig.detach(device.name)
