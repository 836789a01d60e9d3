"""Ports and sockets of host and guest, joined with no network card in the machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import socketserver
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_nb import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, proxy

PAGE = 8000


@pytest.fixture(scope="module")
def web(sb):
    """busybox's httpd in the guest, with a large file to download; returns that file's digest."""
    assert "eth" not in sb.run("ls /sys/class/net").stdout
    data = os.urandom(20_000_000)
    sb.mkdir("/tmp/www")
    sb.write("/tmp/www/large", data)
    sb.write("/tmp/www/index.html", "hello from the guest")
    sb.run(f"busybox httpd -p 127.0.0.1:{PAGE} -h /tmp/www", check=True)
    yield hashlib.sha256(data).hexdigest()
    sb.run("killall httpd; rm -r /tmp/www")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def test_a_page_of_the_guest_is_read_on_the_host(sb, web):
    with sb.forward(0, PAGE) as forward:
        assert forward.port > 0
        assert get(f"http://127.0.0.1:{forward.port}/") == b"hello from the guest"
        assert forward.failure is None
    with pytest.raises(OSError):
        get(f"http://127.0.0.1:{forward.port}/")
    forward.close()


def test_downloads_are_whole_also_many_at_once(sb, web):
    def download(url: str) -> str:
        return hashlib.sha256(get(url)).hexdigest()

    with sb.forward(0, PAGE) as forward, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(download, [f"http://127.0.0.1:{forward.port}/large"] * 6)) == {web}


def test_a_hundred_connections_at_once(sb, web):
    with sb.forward(0, PAGE) as forward, contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", forward.port))) for _ in range(100)
        ]
        for connection in connections:
            connection.settimeout(60)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        for connection in connections:
            with connection.makefile("rb") as answer:
                assert answer.read().endswith(b"\r\n\r\nhello from the guest")


def test_a_connection_nobody_takes_is_reset_at_once_and_it_is_told_why(sb):
    with sb.forward(0, 9) as forward:
        connection = socket.create_connection(("127.0.0.1", forward.port), timeout=60)
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert isinstance(forward.failure, NotFound)
        assert "127.0.0.1:9" in str(forward.failure)


@pytest.mark.parametrize("target", [0, 65536, -1, "relative", True, None])
def test_what_cannot_be_forwarded_is_refused(sb, target):
    with pytest.raises(InvalidArgument, match=str(target)):
        sb.forward(0, target)
    with pytest.raises(InvalidArgument, match="host port"):
        sb.forward(65536, 80)


def test_a_port_that_is_taken_is_said(sb):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AlreadyExists, match=str(port)):
            sb.forward(port, 80)
    with sb.forward(port, 80) as forward:
        assert forward.port == port
        assert repr(forward) == f"<Forward from 127.0.0.1:{port} to the guest's port 80>"
    assert repr(forward).endswith("port 80, closed>")


def test_the_end_of_a_forward_is_the_end_of_its_connections_also_of_those_just_begun(sb, web):
    before = len(os.listdir("/proc/self/fd"))
    for pause in (0.0, 0.2):
        with contextlib.ExitStack() as stack:
            with sb.forward(0, PAGE) as forward:
                address = ("127.0.0.1", forward.port)
                connections = [
                    stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(30)
                ]
                time.sleep(pause)
            for connection in connections:
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
    # The machine's ends are closed by a loop that runs beside this.
    deadline = time.monotonic() + 10
    while (left := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left <= before


def test_a_url_leads_to_the_port_and_is_the_same_the_next_time(sb, web, monkeypatch):
    for name in ("JUPYTERHUB_SERVICE_PREFIX", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    url = sb.url(PAGE)
    assert get(url) == b"hello from the guest"
    assert sb.url(PAGE) == url
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    port = url.rstrip("/").rpartition(":")[2]
    assert sb.url(PAGE) == f"/user/ada/proxy/{port}/"


def test_a_jupyter_server_with_the_proxy_is_found_by_what_it_wrote_down(monkeypatch, tmp_path):
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    assert proxy.url(80) == "http://127.0.0.1:80/"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jupyter_server_proxy")
    assert proxy.url(80) == "http://127.0.0.1:80/"
    (tmp_path / "jpserver-4711.json").write_text(json.dumps({"base_url": "/lab/", "port": 8888}))
    assert proxy.url(80) == "/lab/proxy/80/"


# Guest to host


class Upper(socketserver.StreamRequestHandler):
    """Answers with what it was sent, in capitals."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 128


@pytest.fixture
def host_socket(tmp_path_factory):
    path = tmp_path_factory.mktemp("host") / "s"
    with Server(str(path), Upper) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


CLIENT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(sys.argv[2].encode())
sock.shutdown(socket.SHUT_WR)
sys.stdout.write(sock.makefile().read())
"""


@pytest.fixture(scope="module")
def python():
    """A guest whose programs can speak to UNIX sockets."""
    from sandbox_nb import Sandbox

    with Sandbox.started(name="python", image="python") as sandbox:
        yield sandbox


SERVER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX if sys.argv[1][0] == "/" else socket.AF_INET)
listener.bind(sys.argv[1] if sys.argv[1][0] == "/" else ("127.0.0.1", int(sys.argv[1])))
listener.listen()
print("ready", flush=True)
while True:
    sock, _ = listener.accept()
    sock.sendall(b"begin ")
    sock.sendall(str(len(sock.makefile("rb").read())).encode() + b" end")
    sock.close()
"""


@pytest.mark.parametrize("where", [8001, "/run/guest.sock"])
def test_each_direction_ends_by_itself(python, where):
    with python.popen(["python3", "-c", SERVER, str(where)]) as server, python.forward(0, where) as forward:
        assert server.stdout.readline() == b"ready\n"
        for size in (0, 1_000_000):
            with socket.create_connection(("127.0.0.1", forward.port), timeout=60) as connection:
                answer = connection.makefile("rb")
                assert answer.read(6) == b"begin "
                connection.sendall(bytes(size))
                connection.shutdown(socket.SHUT_WR)
                assert answer.read() == b"%d end" % size
                answer.close()


def test_a_program_of_the_guest_reaches_a_socket_of_the_host(python, host_socket):
    with python.forward_socket("/run/host.sock", str(host_socket)) as forward:
        assert forward.port is None
        ask = ["python3", "-c", CLIENT, "/run/host.sock"]
        assert python.run([*ask, "question"], check=True).stdout == "QUESTION"
        assert python.run([*ask, "x" * 100_000], check=True).stdout == "X" * 100_000
        many = 'for i in $(seq 8); do python3 -c "$CLIENT" /run/host.sock n$i & done; wait'
        answers = python.run(many, env={"CLIENT": CLIENT}, check=True).stdout
        assert sorted(answers.split("N")[1:], key=int) == [str(number) for number in range(1, 9)]
    assert python.run(["test", "-e", "/run/host.sock"]).returncode == 1


def test_a_program_of_the_guest_reaches_a_port_of_the_host(python):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upper) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with python.forward_socket("/run/tcp.sock", server.server_address[1]):
            asked = python.run(["python3", "-c", CLIENT, "/run/tcp.sock", "question"], check=True)
        server.shutdown()
        thread.join()
    assert asked.stdout == "QUESTION"


def test_where_nobody_is_on_the_host_the_guest_is_told_at_once(python, tmp_path):
    with python.forward_socket("/run/nobody.sock", str(tmp_path / "nobody")) as forward:
        done = python.run(["python3", "-c", CLIENT, "/run/nobody.sock", "hello"], timeout=60)
        assert done.stdout == "" or done.returncode != 0
        assert isinstance(forward.failure, FileNotFoundError)


def test_a_guest_path_that_cannot_be_is_said(python, host_socket):
    with pytest.raises(NotFound, match="/no/where/s"):
        python.forward_socket("/no/where/s", str(host_socket))
    with pytest.raises(AlreadyExists, match="/etc/passwd"):
        python.forward_socket("/etc/passwd", str(host_socket))
    with pytest.raises(InvalidArgument, match="107 bytes"):
        python.forward_socket("/" + "x" * 107, str(host_socket))


def test_what_is_forwarded_ends_with_the_machine(own, host_socket):
    own.start()
    forward = own.forward(0, 80)
    own.forward_socket("/run/s", str(host_socket))
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_connection(("127.0.0.1", forward.port)):
        own.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.port)).close()
    assert len(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(FailedPrecondition):
        own.forward(0, 80)
    own.start()
    own.forward_socket("/run/s", str(host_socket)).close()
    assert Path(host_socket).exists()
