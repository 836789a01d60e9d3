from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket

import pytest

from sandbox_nb.vsock import connect, transport
from sandbox_nb.vsock.transport import Choice, HybridTransport, KernelTransport


class FakeDevice:
    """Answers every CONNECT the same way, and then closes or keeps silent."""

    def __init__(self, folder, answer, *, silent=False):
        self.path = folder / "v"
        self.asked = []
        self._answer = answer
        self._silent = silent

    async def _handle(self, reader, writer):
        try:
            self.asked.append(await reader.readline())
            writer.write(self._answer)
            if self._silent:
                await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._done.set()

    async def __aenter__(self):
        self._done = asyncio.Event()
        self._server = await asyncio.start_unix_server(self._handle, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._done.wait()


async def test_dialling_ends_with_a_connected_socket_and_takes_nothing_that_follows(folder):
    async with FakeDevice(folder, b"OK 1073741824\nhello") as device:
        with await connect.dial(device.path, 5000, timeout=5) as sock:
            assert device.asked == [b"CONNECT 5000\n"]
            assert sock.getblocking() is False
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"hello"


@pytest.mark.parametrize("number", [b"0", b"5000", b"4294967294"])
async def test_any_number_after_ok_will_do(folder, number):
    async with FakeDevice(folder, b"OK " + number + b"\n"):
        (await connect.dial(folder / "v", 5000, timeout=5)).close()


@pytest.mark.parametrize("answer", [b"", b"OK 1", b"NO\n", b"x" * 100])
async def test_anything_else_is_a_refusal(folder, answer):
    async with FakeDevice(folder, answer):
        with pytest.raises(ConnectionRefusedError, match="guest port 5000 refused.*nothing listens"):
            await connect.dial(folder / "v", 5000, timeout=5)


async def test_a_device_that_hangs_up_before_it_has_read_our_line_refuses(folder):
    loop = asyncio.get_running_loop()
    with connect.listen(folder / "v", 1) as device:
        device.setblocking(False)
        dialling = asyncio.create_task(connect.dial(folder / "v_1", 5000, timeout=5))
        accepted, _ = await loop.sock_accept(device)
        assert await loop.sock_recv(accepted, 1) == b"C"
        accepted.close()
        with pytest.raises(ConnectionRefusedError, match="guest port 5000 refused.*nothing listens"):
            await dialling


async def test_silence_ends_with_the_time_given(folder):
    async with FakeDevice(folder, b"", silent=True):
        with pytest.raises(TimeoutError, match=r"guest port 5000 did not answer.*within 0.05 s"):
            await connect.dial(folder / "v", 5000, timeout=0.05)


async def test_a_device_that_is_not_there_is_said_to_be(folder):
    with pytest.raises(FileNotFoundError):
        await connect.dial(folder / "none", 5000, timeout=1)


async def test_a_cancelled_dial_leaves_nothing_open(folder):
    async with FakeDevice(folder, b"", silent=True):
        before = len(os.listdir("/proc/self/fd"))
        task = asyncio.create_task(connect.dial(folder / "v", 5000, timeout=None))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(os.listdir("/proc/self/fd")) <= before


def test_listening_is_where_the_device_dials(folder):
    with connect.listen(folder / "v", 7000) as listener, socket.socket(socket.AF_UNIX) as guest:
        guest.connect(f"{folder}/v_7000")
        listener.accept()[0].close()


def test_a_port_taken_already_is_said_to_be(folder):
    with connect.listen(folder / "v", 7000), pytest.raises(OSError, match="in use"):
        connect.listen(folder / "v", 7000)


def test_a_path_too_long_for_a_socket_is_refused_by_name(tmp_path):
    with pytest.raises(OSError, match=r"at most 107 bytes.*_7000"):
        connect.listen(tmp_path / ("x" * 100), 7000)


def test_a_socket_left_by_the_dead_is_replaced_but_no_other_file(folder):
    connect.listen(folder / "v", 7000).close()
    connect.listen(folder / "v", 7000).close()
    (folder / "v_7001").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        connect.listen(folder / "v", 7001)
    assert (folder / "v_7001").read_text() == "mine"


def test_a_listener_too_busy_to_be_connected_to_keeps_its_socket(folder):
    with connect.listen(folder / "v", 7000) as listener, contextlib.ExitStack() as waiting:
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = waiting.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(f"{folder}/v_7000")
        with pytest.raises(OSError, match="in use"):
            connect.listen(folder / "v", 7000)


async def test_the_hybrid_transport_is_dial_and_listen(folder):
    way: transport.Transport = HybridTransport(folder / "v")
    async with FakeDevice(folder, b"OK 1\n"):
        (await way.dial(5000, timeout=5)).close()
    way.listen(7000).close()


class TestChoice:
    @pytest.mark.parametrize(
        ("asked", "obstacle", "choice"),
        [
            ("auto", None, Choice("kernel", "/dev/vhost-vsock opens")),
            ("auto", "no module", Choice("vhost-user", "no module")),
            ("vhost-user", None, Choice("vhost-user", "as asked for")),
            ("vhost-user", "no module", Choice("vhost-user", "as asked for")),
            ("kernel", None, Choice("kernel", "as asked for")),
        ],
    )
    def test_the_way_and_why(self, asked, obstacle, choice):
        assert transport.choose(asked, obstacle=obstacle) == choice

    def test_the_kernels_way_cannot_be_had_by_asking(self):
        with pytest.raises(OSError, match="'kernel' cannot be had: no module; 'vhost-user'"):
            transport.choose("kernel", obstacle="no module")

    def test_an_unknown_way_is_refused_by_name(self):
        with pytest.raises(ValueError, match=r"'tcp': one of auto, vhost-user, kernel"):
            transport.choose("tcp", obstacle=None)

    def test_obstacles_are_named_with_the_remedy(self, tmp_path, monkeypatch):
        class Vsock:
            def close(self):
                pass

        monkeypatch.setattr(transport.socket, "socket", lambda *_: Vsock())
        assert "modprobe vhost_vsock" in transport.kernel_obstacle(str(tmp_path / "none"))
        there = tmp_path / "there"
        there.touch()
        assert transport.kernel_obstacle(str(there)) is None

        def refuse(*_):
            raise PermissionError

        monkeypatch.setattr(transport.os, "open", refuse)
        assert "may not be opened" in transport.kernel_obstacle(str(there))

    def test_a_host_without_vsock_has_an_obstacle(self, monkeypatch, tmp_path):
        def unsupported(*_):
            raise OSError(97, os.strerror(97))

        monkeypatch.setattr(transport.socket, "socket", unsupported)
        assert "Address family not supported" in transport.kernel_obstacle(str(tmp_path))


class TestCid:
    def reserve(self, monkeypatch, path, taken):
        claims = []

        def ioctl(_fd, request, argument):
            claims.append((request, int.from_bytes(argument, "little")))
            if len(claims) <= taken:
                raise OSError(98, os.strerror(98))

        monkeypatch.setattr(transport.fcntl, "ioctl", ioctl)
        fd, cid = transport.reserve_cid(str(path))
        os.close(fd)
        return claims, cid

    def test_a_free_one_is_claimed_from_the_kernel(self, monkeypatch, tmp_path):
        (tmp_path / "vhost").touch()
        claims, cid = self.reserve(monkeypatch, tmp_path / "vhost", taken=3)
        assert len(claims) == 4
        assert claims[-1] == (0x4008AF60, cid)
        assert all(claimed >= 3 for _, claimed in claims)

    def test_another_error_is_not_taken_for_a_cid_in_use(self, monkeypatch, tmp_path):
        def broken(*_):
            raise OSError(25, os.strerror(25))

        (tmp_path / "vhost").touch()
        monkeypatch.setattr(transport.fcntl, "ioctl", broken)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="ioctl"):
            transport.reserve_cid(str(tmp_path / "vhost"))
        assert len(os.listdir("/proc/self/fd")) == before


LOOPBACK = 1


@functools.cache
def _no_loopback():
    """Why AF_VSOCK to this very host does not work, as it does where the module vsock_loopback is loaded."""
    try:
        with socket.socket(socket.AF_VSOCK) as listener, socket.socket(socket.AF_VSOCK) as caller:
            listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            listener.listen()
            caller.connect((LOOPBACK, listener.getsockname()[1]))
    except OSError as error:
        return f"no vsock loopback on this host: {error}"
    return None


class TestKernelTransport:
    @pytest.fixture
    def way(self, monkeypatch):
        """To this very host; without a loopback, TCP has the place of vsock, and its addresses too."""
        if _no_loopback() is None:
            return KernelTransport(LOOPBACK)
        monkeypatch.setattr(socket, "AF_VSOCK", socket.AF_INET)
        monkeypatch.setattr(socket, "VMADDR_CID_ANY", "127.0.0.1")
        monkeypatch.setattr(socket, "VMADDR_PORT_ANY", 0)
        return KernelTransport("127.0.0.1")

    def test_whose_a_connection_is(self):
        assert KernelTransport(7).is_guest((7, 1234))
        assert not KernelTransport(7).is_guest((8, 1234))

    async def test_a_connection_carries_the_first_bytes_with_it(self, way):
        with (
            way.listen(socket.VMADDR_PORT_ANY) as listener,
            await way.dial(listener.getsockname()[1], timeout=5, first=b"hello") as sock,
        ):
            assert sock.getblocking() is False
            accepted, address = listener.accept()
            with accepted:
                assert way.is_guest(address)
                assert accepted.recv(100) == b"hello"

    async def test_a_port_taken_already_is_said_to_be(self, way):
        before = len(os.listdir("/proc/self/fd"))
        with way.listen(socket.VMADDR_PORT_ANY) as first, pytest.raises(OSError, match="in use"):
            way.listen(first.getsockname()[1])
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_nobody_there_is_a_refusal(self):
        if reason := _no_loopback():
            pytest.skip(reason)
        with pytest.raises(ConnectionRefusedError, match="port 45455 of guest 1"):
            await KernelTransport(LOOPBACK).dial(45_455, timeout=5)

    @pytest.mark.parametrize(
        ("number", "kind", "words"),
        [
            (errno.ECONNRESET, ConnectionRefusedError, "port 5000 of guest 7 refused: Connection reset by peer"),
            (errno.ENODEV, ConnectionRefusedError, "port 5000 of guest 7 refused: No such device"),
            (errno.ETIMEDOUT, TimeoutError, "port 5000 of guest 7 did not answer in time"),
            (errno.EACCES, PermissionError, "Permission denied"),
        ],
        ids=errno.errorcode.get,
    )
    async def test_what_the_kernel_answers_is_said_in_our_words(self, monkeypatch, number, kind, words):
        async def answer(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", answer)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(kind, match=words):
            await KernelTransport(7).dial(5000, timeout=5)
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_a_cancelled_dial_leaves_nothing_open(self, monkeypatch):
        async def silence(*_):
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", silence)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TimeoutError, match="port 5000 of guest 7 did not answer in time"):
            await KernelTransport(7).dial(5000, timeout=0.01)
        task = asyncio.create_task(KernelTransport(7).dial(5000, timeout=None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(os.listdir("/proc/self/fd")) == before
