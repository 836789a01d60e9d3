"""The device and its front end: start, stop, pause, leave, come back, and those that break the rules."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct

import pytest

from sandbox_nb.vsock import packet, vhost_user
from sandbox_nb.vsock.frontend import FEATURES, RX, TX
from vsock.model import ALL_FEATURES, GUEST_BASE, MEMORY, USER_BASE, data_of

U64, STATE = struct.Struct("<Q"), struct.Struct("<II")


def ask(rig, request, payload=b""):
    rig.front.send(request, payload)
    rig.settle()
    return rig.front.read_reply()


def stop(rig):
    """What QEMU does when the guest resets the device, and when the machine is paused."""
    return tuple(STATE.unpack(ask(rig, vhost_user.GET_VRING_BASE, STATE.pack(index, 0)))[1] for index in (RX, TX))


def signalled(fd):
    try:
        return os.eventfd_read(fd) > 0
    except BlockingIOError:
        return False


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:guest" in line for line in maps)


class TestFrontEnd:
    def test_the_device_says_what_it_can_do(self, rig):
        assert U64.unpack(ask(rig, vhost_user.GET_FEATURES)) == (FEATURES,)
        assert U64.unpack(ask(rig, vhost_user.GET_PROTOCOL_FEATURES)) == (0x209,)
        assert U64.unpack(ask(rig, vhost_user.GET_QUEUE_NUM)) == (2,)

    def test_the_configuration_is_the_guests_cid(self, rig):
        answer = ask(rig, vhost_user.GET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))
        assert answer[12:] == U64.pack(3)
        assert ask(rig, vhost_user.GET_CONFIG, struct.pack("<III", 4, 4, 0))[12:] == bytes(4)
        assert ask(rig, vhost_user.GET_CONFIG, struct.pack("<III", 8, 8, 0))[12:] == b""

    def test_a_request_that_wants_an_answer_gets_one(self, rig):
        rig.front.send(vhost_user.SET_OWNER, flags=9)
        rig.settle()
        assert U64.unpack(rig.front.read_reply()) == (0,)

    def test_it_sees_its_front_end_leave_and_serves_the_next(self, rig):
        wire = rig.open()
        rig.front.socket.close()
        rig.settle()
        assert wire.host_read() == b""
        rig.guest.restart()
        rig.front = rig.attach()
        rig.start()
        rig.open().host.sendall(b"again")
        rig.settle()
        assert data_of(rig.guest.receive()) == b"again"

    def test_the_next_front_end_may_come_before_the_end_of_the_last_was_noticed(self, rig):
        rig.front.socket.close()
        rig.guest.restart()
        rig.front = rig.attach()
        rig.start()
        rig.open()

    def test_a_second_front_end_is_refused_and_the_first_unharmed(self, rig):
        second = rig.attach()
        rig.settle()
        assert second.socket.recv(1) == b""
        rig.open()

    def test_the_guests_memory_is_let_go_of(self, rig):
        before = mappings()
        rig.open()
        rig.front.socket.close()
        rig.settle()
        assert mappings() == before - 1

    def test_a_new_memory_table_in_flight_changes_nothing_for_the_guest(self, rig):
        wire = rig.open()
        table = struct.pack("<IIQQQQ", 1, 0, GUEST_BASE, MEMORY, USER_BASE, 0)
        rig.front.send(vhost_user.SET_MEM_TABLE, table, [rig.guest.fd])
        rig.settle()
        wire.host.sendall(b"still here")
        assert data_of(wire.packets()) == b"still here"

    def test_memory_in_several_regions_is_one_memory(self, rigs):
        rig = rigs()
        half = MEMORY // 2
        messages = rig.front.messages()
        table = struct.pack("<II", 2, 0)
        for place in (0, half):
            table += struct.pack("<QQQQ", GUEST_BASE + place, half, USER_BASE + place, place)
        for request, payload, fds in messages:
            if request == vhost_user.SET_MEM_TABLE:
                payload, fds = table, (rig.guest.fd, rig.guest.fd)
            rig.front.send(request, payload, fds)
        rig.settle()
        rig.open().host.sendall(b"hello")
        rig.settle()
        assert data_of(rig.guest.receive()) == b"hello"

    @pytest.mark.parametrize(
        ("request_", "payload", "fds"),
        [
            (77, b"", 0),
            (vhost_user.SET_FEATURES, U64.pack(1 << 63), 0),
            (vhost_user.SET_VRING_NUM, STATE.pack(2, 8), 0),
            (vhost_user.SET_VRING_KICK, U64.pack(7), 1),
            (vhost_user.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, 1 << 45, 0, 0), 1),
            (vhost_user.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, 4096, 0, 1 << 62), 1),
            (vhost_user.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, 4096, 0, 0), 2),
            (vhost_user.GET_FEATURES, b"", 3),
            (vhost_user.GET_FEATURES, b"", 20),
            (vhost_user.GET_CONFIG, b"", 0),
        ],
        ids=lambda value: str(value)[:12],
    )
    def test_a_front_end_that_breaks_the_rules_is_dropped_and_the_device_serves_the_next(
        self, rig, request_, payload, fds, capsys
    ):
        rig.front.send(request_, payload, [rig.guest.fd] * fds)
        rig.settle()
        assert rig.front.socket.recv(1) == b""
        assert "front end dropped" in capsys.readouterr().err
        rig.guest.restart()
        rig.front = rig.attach()
        rig.start()
        rig.open()

    def test_rings_outside_memory_end_the_front_end(self, rigs, capsys):
        rig = rigs()
        for request, payload, fds in rig.front.messages():
            if request == vhost_user.SET_VRING_ADDR:
                payload = payload[:8] + struct.pack("<QQQQ", 0x1000, 0x1000, 0x1000, 0)
            rig.front.send(request, payload, fds)
            rig.settle()
        assert "ring address" in capsys.readouterr().err

    def test_event_files_that_are_none_end_the_front_end(self, rig, capsys):
        read, write = os.pipe()
        for index in (RX, TX):
            rig.front.send(vhost_user.SET_VRING_CALL, U64.pack(index), [read])
        rig.guest.send(rig.guest.packet(packet.RW, 1, 2))
        rig.guest.tx.wish_interrupt()
        rig.guest.kick()
        rig.settle()
        assert "event file" in capsys.readouterr().err
        assert rig.front.socket.recv(1) == b""
        os.close(read)
        os.close(write)

    def test_a_message_in_pieces_with_its_files_on_the_first_byte(self, rigs):
        rig = rigs()
        for request, payload, fds in rig.front.messages():
            message = struct.pack("<III", request, 1, len(payload)) + payload
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            rig.front.socket.sendmsg([message[:1]], ancillary)
            for byte in message[1:]:
                rig.settle()
                rig.front.socket.send(bytes([byte]))
        rig.settle()
        rig.open()

    def test_files_of_a_message_that_never_ends_are_closed(self, rigs):
        rig = rigs()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [rig.guest.fd] * 5))]
        rig.front.socket.sendmsg([b"\x05"], ancillary)
        rig.settle()
        rig.front.socket.close()
        rig.settle()  # the fixture counts descriptors

    def test_without_protocol_features_the_queues_need_no_enabling(self, rigs):
        rig = rigs()
        rig.front.features = ALL_FEATURES & ~vhost_user.VHOST_USER_F_PROTOCOL_FEATURES
        for request, payload, fds in rig.front.messages():
            if request != vhost_user.SET_VRING_ENABLE:
                rig.front.send(request, payload, fds)
        rig.settle()
        rig.open()

    def test_without_event_idx_and_indirect_it_works_the_same(self, rigs):
        rig = rigs()
        rig.front.features = vhost_user.VIRTIO_F_VERSION_1 | vhost_user.VHOST_USER_F_PROTOCOL_FEATURES
        rig.start()
        wire = rig.open()
        for n in range(200):
            wire.host.sendall(b"%d," % n)
            assert data_of(wire.packets()) == b"%d," % n


class TestGuestLife:
    def test_a_pause_loses_nothing(self, rig):
        wire = rig.open()
        bases = stop(rig)
        assert bases == (1, 1)
        wire.host.sendall(b"sent while paused")
        rig.settle()
        assert rig.guest.receive() == []
        rig.front.start(bases)
        assert data_of(wire.packets()) == b"sent while paused"

    def test_a_pause_before_anything_happened_is_no_reset(self, rig):
        sock = rig.connect()
        sock.sendall(b"CONNECT 5000\n")
        assert stop(rig) == (0, 0)
        rig.settle()
        rig.front.start((0, 0))
        rig.settle()
        assert [header.op for header, _ in rig.guest.receive()] == [packet.REQUEST]

    def test_a_reboot_ends_all_connections(self, rig):
        """A guest that dies left its clients hanging elsewhere."""
        wires = [rig.open() for _ in range(5)]
        wires[0].send(packet.RW, b"last words")
        stop(rig)
        rig.guest.restart()
        rig.front.start()
        rig.settle()
        assert wires[0].host_read() == b"last words"
        for wire in wires:
            assert wire.host_read() == b""
        rig.open()

    def test_an_interrupt_comes_for_each_queue_when_wished_for(self, rig):
        wire = rig.open()
        for fd in rig.guest.calls:
            signalled(fd)
        rig.guest.rx.wish_interrupt()
        wire.host.sendall(b"x")
        rig.settle()
        assert [signalled(fd) for fd in rig.guest.calls] == [True, False]
        rig.guest.tx.used_chains()
        rig.guest.tx.wish_interrupt()
        wire.send(packet.RW, b"y")
        assert [signalled(fd) for fd in rig.guest.calls] == [False, True]

    def test_a_burst_is_one_interrupt(self, rig):
        wire = rig.open()
        signalled(rig.guest.calls[RX])
        rig.guest.receive()
        rig.guest.rx.wish_interrupt()
        wire.host.sendall(bytes(200_000))
        rig.settle()
        assert os.eventfd_read(rig.guest.calls[RX]) == 1

    def test_an_idle_device_wants_kicks_for_what_the_guest_sends_alone(self, rig):
        rig.open()
        rig.guest.tx.kick_needed()
        rig.guest.rx.kick_needed()
        rig.guest.receive()
        assert not rig.guest.rx.kick_needed()
        rig.guest.send(rig.guest.packet(packet.RST, 1, 1))
        assert rig.guest.tx.kick_needed()

    def test_an_idle_device_sleeps(self, rig):
        rig.open()
        assert rig.device.bridge.deadline is None
        assert not rig.device.step(wait=False)

    @pytest.mark.parametrize("queue", ["rx", "tx"])
    def test_a_driver_that_breaks_a_queue_silences_the_device_until_it_is_reset(self, rig, queue, capsys):
        wire = rig.open()
        ring = getattr(rig.guest, queue)
        ring.set_available_index(ring.available_index + 500)
        for _ in range(3):
            with contextlib.suppress(OSError):
                wire.host.send(b"x" * 100_000)
            rig.guest.kick()
            rig.settle()
        assert "until it is reset" in capsys.readouterr().err
        assert signalled(rig.guest.errors[RX])
        with contextlib.suppress(ConnectionResetError):  # which says that some of its bytes were not taken
            assert wire.host.recv(100) == b""
        stop(rig)
        rig.guest.restart()
        rig.front.start()
        rig.settle()
        rig.open()


def test_what_the_guest_sent_before_its_queues_stop_is_passed_on(rig):
    """A guest that powers off resets its device right behind its last words."""
    wire = rig.open()
    guest = rig.guest
    guest.send(guest.packet(packet.RW, wire.guest_port, wire.host_port, len=5), b"bye!\n")
    stop(rig)  # no kick came before
    assert wire.host.recv(64) == b"bye!\n"


def test_what_the_guest_sent_before_the_front_end_was_killed_is_passed_on(rig):
    wire = rig.open()
    guest = rig.guest
    guest.send(guest.packet(packet.RW, wire.guest_port, wire.host_port, len=5), b"bye!\n")
    rig.front.socket.close()
    rig.settle()
    assert wire.host.recv(64) == b"bye!\n"
    assert wire.host.recv(64) == b""
