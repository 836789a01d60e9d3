"""Devices and root ports without a QEMU: what is asked, in which order, and what is left when it is refused."""

from __future__ import annotations

import asyncio

import pytest

from sandbox_nb.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sandbox_nb.vm import attach
from sandbox_nb.vm.attach import Attachments
from sandbox_nb.vm.ports import RootPorts


class Qemu:
    """Answers QMP: a device leaves when ``guest`` says so."""

    def __init__(self):
        self.asked = []
        self.refuse = {}
        self.ports = RootPorts(2, self.execute)
        self.guest = "agrees"
        self.pause = asyncio.Event()
        self.pause.set()

    async def execute(self, verb, arguments=None):
        self.asked.append((verb, (arguments or {}).get("id")))
        await self.pause.wait()
        if verb in self.refuse:
            raise self.refuse[verb]
        if verb == "device_del" and self.guest == "agrees":
            asyncio.get_running_loop().call_soon(self.ports.deleted, "")  # the part behind the PCI function
            asyncio.get_running_loop().call_soon(self.ports.deleted, arguments["id"])


class Backend:
    kind, how, source = "disk", "raw", "/image"

    def __init__(self, error=None):
        self.error = error
        self.state = "prepared"

    async def open(self, host, identity):
        self.state = "open"
        if self.error:
            raise self.error
        return {"driver": "virtio-blk-pci"}

    async def close(self, host):
        assert self.state == "open"
        self.state = "closed"
        if self.error:
            raise Unavailable("QEMU is gone")


@pytest.fixture
async def qemu():
    return Qemu()


@pytest.fixture
async def attachments(qemu):
    return Attachments(None, qemu.ports)


async def test_what_came_goes_and_frees_its_port(qemu, attachments):
    for _ in range(5):
        backend = Backend()
        attached = await attachments.attach("d", backend)
        assert attached.port in ("port0", "port1")
        assert attachments.devices == [attached]
        await attachments.detach("d")
        assert backend.state == "closed"
        assert attachments.devices == []
    assert [verb for verb, _ in qemu.asked] == ["device_add", "device_del"] * 5
    assert len({identity for _, identity in qemu.asked}) == 5  # an id is not used again


@pytest.mark.parametrize("step", ["open", "device_add"])
async def test_a_device_that_is_refused_leaves_nothing(qemu, attachments, step):
    error = FailedPrecondition("no")
    backend = Backend(error if step == "open" else None)
    qemu.refuse = {"device_add": error}
    with pytest.raises(FailedPrecondition, match="no"):
        await attachments.attach("d", backend)
    assert backend.state == "closed"
    assert attachments.devices == []
    qemu.refuse = {}
    for name in "de":  # both ports are free
        await attachments.attach(name, Backend())


async def test_a_device_that_finds_no_port_is_told_what_the_ports_are_for(qemu, attachments):
    for name in "de":
        await attachments.attach(name, Backend())
    with pytest.raises(
        ResourceExhausted, match="a machine has 2, of which vsock takes one.*detach a device first"
    ):
        await attachments.attach("f", Backend())


async def test_a_name_is_taken_from_the_first_moment(qemu, attachments):
    qemu.pause.clear()
    coming = asyncio.create_task(attachments.attach("d", Backend()))
    await asyncio.sleep(0)
    with pytest.raises(AlreadyExists):
        await attachments.attach("d", Backend())
    with pytest.raises(NotFound):
        await attachments.detach("d")
    qemu.pause.set()
    await coming
    going = [asyncio.create_task(attachments.detach("d")) for _ in range(2)]
    first, second = await asyncio.gather(*going, return_exceptions=True)
    assert first is None
    assert isinstance(second, NotFound)


async def test_a_guest_that_does_not_agree_keeps_it_and_may_later(qemu, attachments):
    qemu.guest = "sleeps"
    attached = await attachments.attach("d", Backend())
    with pytest.raises(DeadlineExceeded, match="let go of the device .* try again"):
        await attachments.detach("d", timeout=0.01)
    assert attachments.devices == [attached]
    # QEMU remembers the request, and says so when it is made again.
    qemu.refuse = {"device_del": FailedPrecondition("Device disk0 is already in the process of unplug")}
    asyncio.get_running_loop().call_later(0.01, qemu.ports.deleted, attached.identity)
    await attachments.detach("d", timeout=5)
    assert attachments.devices == []


async def test_a_guest_that_was_faster_is_no_error(qemu, attachments):
    """On native PCIe the guest's own switching off of the slot takes the device out."""
    await attachments.attach("d", Backend())
    qemu.refuse = {"device_del": NotFound("Device 'disk0' not found")}
    await attachments.detach("d")
    assert attachments.devices == []


async def test_a_refusal_of_another_kind_is_told(qemu, attachments):
    await attachments.attach("d", Backend())
    qemu.refuse = {"device_del": FailedPrecondition("Bus 'port0' does not support hotplugging")}
    with pytest.raises(FailedPrecondition, match="hotplugging"):
        await attachments.detach("d")
    assert [device.name for device in attachments.devices] == ["d"]


async def test_a_cancelled_attach_is_taken_back(qemu, attachments):
    backend = Backend()
    qemu.pause.clear()
    coming = asyncio.create_task(attachments.attach("d", backend))
    await asyncio.sleep(0.01)
    coming.cancel()
    await asyncio.sleep(0.01)
    qemu.pause.set()
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert backend.state == "closed"
    assert attachments.devices == []
    assert [verb for verb, _ in qemu.asked] == ["device_add", "device_del"]
    await attachments.attach("d", Backend())


async def test_a_cancelled_attach_to_a_guest_that_sleeps_stays_until_the_end(qemu, attachments, monkeypatch):
    monkeypatch.setattr(attach, "TAKE_BACK_TIMEOUT", 0.01)
    qemu.guest = "sleeps"
    backend = Backend()
    qemu.pause.clear()
    coming = asyncio.create_task(attachments.attach("d", backend))
    await asyncio.sleep(0.01)
    coming.cancel()
    qemu.pause.set()
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert backend.state == "open"
    assert [device.name for device in attachments.devices] == ["d"]
    await attachments.close()
    assert backend.state == "closed"


async def test_with_qemu_gone_nobody_waits_and_backends_let_go(qemu, attachments):
    qemu.guest = "sleeps"
    backends = [Backend(), Backend()]
    for name, backend in zip("de", backends, strict=True):
        await attachments.attach(name, backend)
        backend.error = Unavailable("QEMU is gone")
    going = asyncio.create_task(attachments.detach("d", timeout=60))
    await asyncio.sleep(0.01)
    qemu.ports.ended()
    await going
    await attachments.close()
    await attachments.close()
    assert [backend.state for backend in backends] == ["closed", "closed"]
    assert attachments.devices == []
