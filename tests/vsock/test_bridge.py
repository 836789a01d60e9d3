"""The device between a guest in memory and hosts on UNIX sockets; other people's mistakes, by name."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import zlib

import pytest

from sandbox_nb.vsock import bridge, handshake, packet, table
from sandbox_nb.vsock.packet import HOST_CID, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND
from vsock.model import data_of
from vsock.rig import Wire

KIB = 1024


def nothing_to_read(sock):
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    return True


class TestOpening:
    def test_a_host_reaches_a_guest_port(self, rig):
        wire = rig.open()
        wire.host.sendall(b"hello")
        ((header, data),) = wire.packets()
        assert (header.op, header.dst_port, data) == (packet.RW, 5000, b"hello")
        wire.send(packet.RW, b"world")
        assert wire.host_read() == b"world"

    def test_a_guest_reaches_a_host_port(self, rig):
        wire = rig.open_from_guest()
        wire.send(packet.RW, b"from guest")
        assert wire.host_read() == b"from guest"
        wire.host.sendall(b"from host")
        assert data_of(wire.packets()) == b"from host"

    def test_a_port_nobody_listens_on_in_the_guest_is_refused_by_closing(self, rig):
        sock = rig.connect()
        sock.sendall(b"CONNECT 9\n")
        rig.settle()
        ((header, _),) = rig.guest.receive()
        rig.guest.send(rig.guest.packet(packet.RST, 9, header.src_port))
        rig.guest.kick()
        rig.settle()
        assert sock.recv(10) == b""

    def test_a_port_nobody_listens_on_at_the_host_is_refused_by_reset(self, rig):
        rig.guest.send(rig.guest.packet(packet.REQUEST, 1234, 7000))
        rig.guest.kick()
        rig.settle()
        ((header, _),) = rig.guest.receive()
        assert (header.op, header.src_port, header.dst_port) == (packet.RST, 7000, 1234)

    def test_a_full_backlog_at_the_host_is_waited_for(self, rig):
        listener = rig.listen(7000, backlog=0)
        ports = {1, 2, 3, 4}
        for port in ports:
            rig.guest.send(rig.guest.packet(packet.REQUEST, port, 7000))
        rig.guest.kick()
        rig.settle()
        accepted, socks = [], []

        def all_there():
            with contextlib.suppress(BlockingIOError):
                socks.append(rig.keep(listener.accept()[0]))
            accepted.extend(header.dst_port for header, _ in rig.guest.receive())
            return set(accepted) == ports

        assert not all_there()
        rig.wait(all_there)
        for sock in socks:  # and one that had to wait is none the worse for it
            sock.shutdown(socket.SHUT_WR)
        rig.settle()
        assert {header.flags for header, _ in rig.guest.receive()} == {SHUTDOWN_SEND}

    def test_bytes_sent_together_with_the_connect_line_arrive(self, rig):
        wire = rig.open(pipelined=b"pipelined\nCONNECT 1\n")
        assert data_of(wire.packets()) == b"pipelined\nCONNECT 1\n"

    def test_bytes_sent_together_with_the_connect_line_arrive_even_if_the_host_closes_at_once(self, rig):
        sock = rig.connect()
        sock.sendall(b"CONNECT 5000\nlast words")
        sock.close()
        rig.settle()
        ((request, _),) = rig.guest.receive()
        rig.guest.send(rig.guest.packet(packet.RESPONSE, 5000, request.src_port))
        rig.guest.kick()
        rig.settle()
        packets = rig.guest.receive()
        assert data_of(packets) == b"last words"
        assert (packets[-1][0].op, packets[-1][0].flags) == (packet.SHUTDOWN, SHUTDOWN_BOTH)

    def test_a_connect_line_may_come_in_pieces(self, rig):
        sock = rig.connect()
        for byte in b"CONNECT 5000\n":
            assert not rig.guest.receive()
            sock.send(bytes([byte]))
            rig.settle()
        assert [header.op for header, _ in rig.guest.receive()] == [packet.REQUEST]

    def test_every_packet_is_delivered_and_not_only_the_first(self, rig):
        wire = rig.open()
        for n in range(200):
            wire.host.sendall(b"%d," % n)
            assert data_of(wire.packets()) == b"%d," % n

    def test_host_ports_are_not_shared(self, rig):
        ports = {rig.open(5000).host_port for _ in range(10)}
        assert len(ports) == 10
        assert min(ports) >= 1 << 30

    def test_host_ports_begin_again_and_skip_those_in_use(self, rig):
        first = rig.open()
        rig.device.bridge._table._next_port = handshake.LAST_PORT
        assert rig.open().host_port == handshake.LAST_PORT
        assert rig.open().host_port == first.host_port + 1

    def test_a_guest_that_never_answers_is_given_up(self, rig, monkeypatch):
        monkeypatch.setattr(bridge, "TIMEOUT", 0.05)
        sock = rig.connect()
        sock.sendall(b"CONNECT 5000\n")
        rig.settle()
        rig.wait(lambda: not rig.device.statistics()["streams"])
        rig.settle()
        assert sock.recv(1) == b""
        assert [header.op for header, _ in rig.guest.receive()] == [packet.REQUEST, packet.RST]

    def test_without_a_front_end_there_is_nobody_to_wait_for(self, rig):
        rig.front.socket.close()
        rig.settle()
        sock = rig.connect()
        rig.settle()
        assert sock.recv(1) == b""

    def test_a_host_may_dial_before_the_guest_has_booted(self, rigs):
        rig = rigs()
        rig.settle()
        sock = rig.connect()
        sock.sendall(b"CONNECT 5000\n")
        rig.settle()
        rig.start()
        assert [header.op for header, _ in rig.guest.receive()] == [packet.REQUEST]


class TestBadHandshakes:
    WRONG = (
        b"\n",
        b"CONNECT\n",
        b"CONNECT x\n",
        b"CONNECT -1\n",
        b"CONNECT 4294967295\n",
        b"CONNECT 99999999999999\n",
        b"CONNECT  5\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT 5" + b"0" * 40,
        bytes(64),
        "CONNECT ٣\n".encode(),
    )

    @pytest.mark.parametrize("line", WRONG)
    def test_a_wrong_line_is_answered_by_closing(self, rig, line):
        sock = rig.connect()
        sock.sendall(line)
        rig.settle()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(10) == b""
        assert not rig.guest.receive()

    @pytest.mark.parametrize("line", [b"", b"CONN", b"CONNECT 5000"])
    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_a_host_that_leaves_early_leaves_nothing_behind(self, rig, line, end):
        sock = rig.connect()
        rig.settle()
        sock.sendall(line)
        rig.settle()
        sock.close() if end == "close" else sock.shutdown(socket.SHUT_WR)
        rig.settle()
        assert rig.device.statistics()["handshakes"] == 0

    def test_a_host_that_says_nothing_is_given_up(self, rig, monkeypatch):
        monkeypatch.setattr(handshake, "TIMEOUT", 0.05)
        sock = rig.connect()
        rig.settle()
        rig.wait(lambda: not rig.device.statistics()["handshakes"])
        rig.settle()
        assert sock.recv(1) == b""

    def test_thousands_of_them_beside_a_transfer_do_not_harm_it(self, rig):
        """An early disconnect or a CONNECT without newline killed other devices."""
        chance = random.Random(4)
        wire, bulk = rig.open(), os.urandom(1 << 20)
        got, sent = bytearray(), 0
        for n in range(5000):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(str(rig.uds))
            sock.send(chance.choice([b"", b"CONNECT", b"CONNECT 5", *self.WRONG]))
            sock.close()
            if n % 3 == 0:
                with contextlib.suppress(BlockingIOError):
                    sent += wire.host.send(bulk[sent : sent + 1000])
            got += data_of(wire.packets())
            if len(got) % 64_000 > 60_000:
                wire.send(packet.CREDIT_UPDATE, fwd_cnt=len(got))
        while len(got) < len(bulk):
            with contextlib.suppress(BlockingIOError):
                sent += wire.host.send(bulk[sent : sent + 65536])
            got += data_of(wire.packets())
            wire.send(packet.CREDIT_UPDATE, fwd_cnt=len(got))
        assert got == bulk
        assert len(rig.device.statistics()["streams"]) == 1


class TestLimit:
    def test_connections_above_the_limit_are_refused_and_counted(self, rigs):
        rig = rigs(limit=3)
        rig.start()
        wires = [rig.open() for _ in range(3)]
        sock = rig.connect()
        rig.settle()
        assert sock.recv(1) == b""
        rig.listen(7000)
        rig.guest.send(rig.guest.packet(packet.REQUEST, 1, 7000))
        rig.guest.kick()
        rig.settle()
        assert [header.op for header, _ in rig.guest.receive()] == [packet.RST]
        assert rig.device.statistics()["over_limit"] == 2
        wires[0].send(packet.RST)
        rig.open()

    def test_room_granted_shrinks_with_the_number_of_connections_and_comes_back(self, rigs):
        rig = rigs(limit=2000)
        rig.start()
        wires = [rig.open() for _ in range(300)]
        granted = [s["credit_of_guest"]["granted"] for s in rig.device.statistics()["streams"]]
        assert granted[0] == table.MAX_WINDOW
        assert granted[-1] == table.MIN_WINDOW
        assert sum(granted) <= table.WINDOW_BUDGET + 300 * table.MIN_WINDOW
        for wire in wires:
            wire.send(packet.RST)
        assert rig.device.statistics()["granted"] == 0

    def test_what_is_kept_of_connections_the_guest_has_ended_counts_until_it_is_delivered(self, rigs):
        rig = rigs(limit=200)
        rig.start()
        listener = rig.listen(7000, backlog=100)
        for port in range(100):
            rig.guest.send(rig.guest.packet(packet.REQUEST, port, 7000))
            rig.guest.kick()
            rig.settle()
            wire = Wire(rig, None, 7000, port)
            wire.fill()
            wire.send(packet.RST)
            rig.guest.receive()
        kept = rig.device.statistics()
        assert len(kept["streams"]) == 100
        assert sum(s["backlog"] for s in kept["streams"]) <= table.WINDOW_BUDGET + 100 * table.MIN_WINDOW
        for _ in range(100):
            listener.accept()[0].close()
        rig.settle()
        assert rig.device.statistics()["granted"] == 0


class TestEnding:
    def test_the_host_shuts_one_way_and_the_rest_still_arrives(self, rig):
        """`cat` style: a half-close tore down both ways elsewhere."""
        wire = rig.open()
        wire.host.sendall(b"question")
        wire.host.shutdown(socket.SHUT_WR)
        packets = wire.packets()
        assert data_of(packets) == b"question"
        assert [(h.op, h.flags) for h, _ in packets[1:]] == [(packet.SHUTDOWN, SHUTDOWN_SEND)]
        wire.send(packet.RW, b"a long answer")
        assert wire.host_read() == b"a long answer"
        wire.send(packet.SHUTDOWN, flags=SHUTDOWN_BOTH)
        assert wire.host_read() == b""
        assert wire.ops() == [packet.RST]

    def test_the_guest_shuts_one_way_and_the_rest_still_arrives(self, rig):
        wire = rig.open()
        wire.send(packet.RW, b"all I have to say")
        wire.send(packet.SHUTDOWN, flags=SHUTDOWN_SEND)
        assert wire.host_read() == b"all I have to say"
        assert wire.host_read() == b""
        wire.host.sendall(b"but I have more")
        assert data_of(wire.packets()) == b"but I have more"

    def test_a_guest_that_will_not_read_makes_the_hosts_writes_fail(self, rig):
        wire = rig.open()
        wire.send(packet.SHUTDOWN, flags=SHUTDOWN_RECEIVE)
        with pytest.raises(BrokenPipeError):
            wire.host.send(b"x")
        wire.send(packet.RW, b"still talking")
        assert wire.host_read() == b"still talking"

    def test_a_host_that_closes_says_so_after_its_last_byte(self, rig):
        wire = rig.open()
        wire.host.sendall(b"x" * 10_000)
        wire.host.close()
        packets = wire.packets()
        assert data_of(packets) == b"x" * 10_000
        assert (packets[-1][0].op, packets[-1][0].flags) == (packet.SHUTDOWN, SHUTDOWN_BOTH)

    def test_a_host_that_shuts_and_then_closes_says_both(self, rig):
        wire = rig.open()
        wire.host.shutdown(socket.SHUT_WR)
        assert [h.flags for h, _ in wire.packets()] == [SHUTDOWN_SEND]
        wire.host.close()
        assert [h.flags for h, _ in wire.packets()] == [SHUTDOWN_BOTH]

    def test_what_the_guest_sends_to_a_host_that_left_is_dropped_and_its_credit_returned(self, rig):
        wire = rig.open()
        wire.host.close()
        wire.packets()
        for _ in range(40):
            wire.send(packet.RW, bytes(60_000))
        (stream,) = rig.device.statistics()["streams"]
        assert stream["backlog"] == 0
        assert stream["credit_of_guest"]["held"] == 0

    def test_a_closed_guest_is_answered_by_reset_while_its_last_bytes_wait_for_the_host(self, rig):
        wire = rig.open()
        data = wire.fill()
        wire.send(packet.SHUTDOWN, flags=SHUTDOWN_BOTH)
        assert packet.RST in wire.ops()
        assert [s["state"] for s in rig.device.statistics()["streams"]] == ["CLOSED"]
        got = b""
        while piece := wire.host_read():
            got += piece
        assert got == data
        assert rig.device.statistics()["streams"] == []

    def test_a_host_that_leaves_what_lingers_ends_it(self, rig):
        wire = rig.open()
        wire.fill()
        wire.send(packet.RST)
        assert [s["state"] for s in rig.device.statistics()["streams"]] == ["CLOSED"]
        wire.host.close()
        rig.settle()
        assert rig.device.statistics()["streams"] == []

    def test_a_reset_ends_the_connection_and_frees_its_ports(self, rig):
        wire = rig.open()
        wire.send(packet.RST)
        assert wire.host_read() == b""
        assert wire.ops() == []
        wire.send(packet.RW, b"late")
        assert wire.ops() == [packet.RST]


class TestStrayPackets:
    @pytest.mark.parametrize("op", [packet.RESPONSE, packet.RW, packet.SHUTDOWN, packet.CREDIT_UPDATE, 99])
    def test_a_packet_for_no_connection_is_answered_by_reset(self, rig, op):
        rig.guest.send(rig.guest.packet(op, 1, 2))
        rig.guest.kick()
        rig.settle()
        assert [header.op for header, _ in rig.guest.receive()] == [packet.RST]

    def test_a_reset_is_never_answered(self, rig):
        rig.guest.send(rig.guest.packet(packet.RST, 1, 2))
        rig.guest.kick()
        rig.settle()
        assert rig.guest.receive() == []

    def test_a_packet_of_another_guest_is_ignored(self, rig):
        rig.guest.send(rig.guest.packet(packet.REQUEST, 1, 2)._replace(src_cid=9))
        rig.guest.kick()
        rig.settle()
        assert rig.guest.receive() == []

    def test_another_host_or_socket_type_is_refused(self, rig):
        rig.listen(7000)
        request = rig.guest.packet(packet.REQUEST, 1, 7000)
        for wrong in (request._replace(dst_cid=7), request._replace(type=2)):
            rig.guest.send(wrong)
            rig.guest.kick()
            rig.settle()
            ((header, _),) = rig.guest.receive()
            assert (header.op, header.src_cid, header.type) == (packet.RST, wrong.dst_cid, wrong.type)
        assert HOST_CID == 2

    def test_a_violation_resets_that_connection_alone(self, rig):
        good, bad = rig.open(), rig.open()
        bad.send(packet.RESPONSE)
        assert bad.host_read() == b""
        good.host.sendall(b"fine")
        packets = rig.guest.receive()
        rig.settle()
        packets += rig.guest.receive()
        assert [h.dst_port for h, _ in packets if h.op == packet.RST] == [bad.guest_port]
        assert data_of(packets) == b"fine"

    def test_more_than_was_granted_resets_the_connection(self, rig):
        wire = rig.open()
        data = wire.fill()
        wire.send(packet.RW, b"one more")
        assert wire.ops()[-1] == packet.RST
        got = b""
        while piece := wire.host_read():
            got += piece
        assert got == data

    def test_a_guest_that_never_reads_its_resets_is_not_listened_to_any_longer(self, rigs):
        rig = rigs(buffers=4)
        rig.start()
        for port in range(bridge.MAX_REPLIES + 50):
            while not rig.guest.can_send():
                rig.settle()
                if not rig.guest.can_send():
                    break
            if not rig.guest.can_send():
                break
            rig.guest.send(rig.guest.packet(packet.RW, port, 9))
            rig.guest.kick()
            rig.settle()
        assert len(rig.device.bridge._replies) <= bridge.MAX_REPLIES + 64
        assert not rig.device.bridge.accepting
        while rig.guest.receive():
            rig.guest.kick()
            rig.settle()
        assert rig.device.bridge.accepting


class TestFlow:
    def transfer(self, wire, data, chance, *, window=256 * KIB):
        """Host to guest, at random sizes, the guest taking and reporting at random."""
        got, sent, taken = bytearray(), 0, 0
        while len(got) < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += wire.host.send(data[sent : sent + chance.randrange(1, 300_000)])
            got += data_of(wire.packets())
            assert len(got) - taken <= window
            if chance.random() < 0.5 or len(got) - taken == window:
                taken += chance.randrange(0, len(got) - taken + 1)
                wire.send(packet.CREDIT_UPDATE, fwd_cnt=taken, buf_alloc=window)
        return bytes(got)

    @pytest.mark.parametrize("split", [True, False], ids=["linux6.1", "linux6.6"])
    @pytest.mark.parametrize("buffer_size", [4096, 3776, 333])
    def test_host_to_guest_nothing_is_lost_whatever_the_sizes(self, rigs, split, buffer_size):
        rig = rigs(split=split, buffer_size=buffer_size)
        rig.start()
        chance, data = random.Random(buffer_size), os.urandom(4 << 20)
        wire = rig.open()
        assert zlib.crc32(self.transfer(wire, data, chance)) == zlib.crc32(data)

    def test_guest_to_host_nothing_is_lost_whatever_the_sizes(self, rig):
        """Other devices dropped bytes on a partial write or a full buffer."""
        chance, data = random.Random(3), os.urandom(16 << 20)
        wire = rig.open()
        got, sent, granted, forwarded = bytearray(), 0, table.MAX_WINDOW, 0
        while len(got) < len(data):
            free = granted - (sent - forwarded)
            size = min(chance.randrange(1, 65_536), free, len(data) - sent)
            if size and chance.random() < 0.8:
                wire.send(packet.RW, data[sent : sent + size])
                sent += size
            if chance.random() < 0.5 or not size:
                with contextlib.suppress(BlockingIOError):
                    got += wire.host.recv(chance.randrange(1, 400_000))
            for header, _ in wire.packets():
                granted, forwarded = header.buf_alloc, header.fwd_cnt
            assert len(rig.device.statistics()["streams"]) == 1
        assert zlib.crc32(got) == zlib.crc32(data)

    @pytest.mark.parametrize("size", [240 * KIB - 1, 240 * KIB, 240 * KIB + 1, 256 * KIB, 64 * KIB, 1 << 20])
    def test_no_size_deadlocks(self, rig, size):
        """Elsewhere exactly 240 KiB did, and a large packet after a lost credit update."""
        wire, data = rig.open(), os.urandom(size)
        assert self.transfer(wire, data, random.Random(size)) == data

    def test_a_guest_that_stops_reading_stops_the_host_and_nobody_else(self, rig):
        stuck, other = rig.open(buf_alloc=64 * KIB), rig.open()
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += stuck.host.send(bytes(10_000))
                assert len(data_of(stuck.packets())) <= 64 * KIB
        assert sent > 64 * KIB
        other.host.sendall(b"not stuck")
        assert data_of(other.packets()) == b"not stuck"

    def test_a_host_that_stops_reading_stops_the_guest_and_nobody_else(self, rig):
        stuck, other = rig.open(), rig.open()
        data = stuck.fill()
        standing = stuck.statistics()
        assert standing["backlog"] == standing["credit_of_guest"]["held"] == table.MAX_WINDOW
        other.send(packet.RW, b"not stuck")
        assert other.host_read() == b"not stuck"
        got = b""
        while len(got) < len(data):
            got += stuck.host_read()
        assert got == data
        assert stuck.statistics()["backlog"] == 0

    def test_a_guest_silent_about_its_credit_is_asked(self, rig, monkeypatch):
        monkeypatch.setattr(bridge, "PROBE", 0.02)
        wire = rig.open(buf_alloc=4 * KIB)
        wire.host.sendall(bytes(10 * KIB))
        assert len(data_of(wire.packets())) == 4 * KIB
        asked = []
        rig.wait(lambda: asked.extend(h.op for h, _ in rig.guest.receive()) or len(asked) >= 2)
        assert asked == [packet.CREDIT_REQUEST] * 2
        wire.send(packet.CREDIT_UPDATE, buf_alloc=4 * KIB, fwd_cnt=4 * KIB)
        assert len(data_of(wire.packets())) == 4 * KIB

    def test_small_writes_are_joined_when_the_guest_lags(self, rig):
        """From 6.12.92 on Linux resets a connection on which too many packets wait, credit or no credit."""
        wire = rig.open(buf_alloc=256 * KIB)
        data, waiting, asked = b"", 0, 0
        with contextlib.suppress(BlockingIOError):  # in the end the host must wait
            while True:
                piece = b"%04d" % (len(data) % 9999)
                wire.host.send(piece)
                data += piece
                for header, _ in wire.packets():
                    waiting += header.op == packet.RW
                    asked += header.op == packet.CREDIT_REQUEST
        assert 128 < waiting <= 256 * KIB // 576
        assert asked == 1
        wire.send(packet.CREDIT_UPDATE, buf_alloc=256 * KIB, fwd_cnt=4 * waiting)
        packets = wire.packets()
        assert data_of(packets) == data[4 * waiting :]
        assert len(packets) <= 4

    def test_a_packet_of_nothing_is_not_the_end(self, rig):
        wire = rig.open()
        wire.send(packet.RW)
        assert nothing_to_read(wire.host)
        wire.send(packet.RW, b"more")
        assert wire.host_read() == b"more"

    def test_streams_take_turns(self, rig):
        """A stream with always more to say does not keep the others from speaking."""
        wires = [rig.open(buf_alloc=1 << 20) for _ in range(8)]
        shares = dict.fromkeys((wire.host_port for wire in wires), 0)
        for _ in range(20):
            for wire in wires:
                with contextlib.suppress(BlockingIOError):
                    wire.host.send(bytes(200_000))
            rig.device.step(wait=False)
            for header, data in rig.guest.receive():
                shares[header.src_port] += len(data)
            rig.guest.kick()
        assert min(shares.values()) > 0
        assert max(shares.values()) < 4 * min(shares.values())

    def test_what_came_first_is_heard_first(self, rig):
        """A command's errors came before the output they are about, whenever it ended right behind them."""
        out, err = rig.open(), rig.open()
        with select.epoll() as ears:
            for wire in (out, err):
                ears.register(wire.host, select.EPOLLIN)
            guest = rig.guest
            for wire, op in ((out, packet.RW), (err, packet.RW), (err, packet.SHUTDOWN), (out, packet.SHUTDOWN)):
                payload = b"line" if op == packet.RW else b""
                flags = SHUTDOWN_BOTH if op == packet.SHUTDOWN else 0
                header = guest.packet(op, wire.guest_port, wire.host_port, len=len(payload), flags=flags)
                guest.send(header, payload)
            guest.kick()
            rig.settle()
            # The kernel reports sockets in the order in which they became readable.
            assert [fd for fd, _ in ears.poll(0)] == [out.host.fileno(), err.host.fileno()]

    def test_file_descriptors_sent_along_do_not_lose_the_bytes_behind_them(self, rig):
        wire = rig.open()
        for part in (b"one", b"two", b"three"):
            socket.send_fds(wire.host, [part], [0])
        assert data_of(wire.packets()) == b"onetwothree"

    def test_without_buffers_the_guest_is_waited_for(self, rigs):
        rig = rigs(buffers=2)
        rig.start()
        wire = rig.open()
        data = os.urandom(40_000)
        wire.host.sendall(data)
        got = b""
        while len(got) < len(data):
            rig.settle()
            packets = rig.guest.receive()
            assert 0 < len(packets) <= 2
            got += data_of(packets)
            rig.guest.kick()
        assert got == data
