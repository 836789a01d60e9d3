"""Devices, files and ports, between a machine and its host, in a real kernel."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def folder(running, tmp_path_factory):
    """The folder that the kernel works in."""
    folder = tmp_path_factory.mktemp("work")
    running.run(f"import os; os.chdir({str(folder)!r})")
    (folder / "src").mkdir()
    (folder / "src" / "a.txt").write_text("of the host")
    return folder


def test_devices_come_and_go_on_a_running_machine(running, folder):
    assert running.run("%sandbox attach --share src=src,ro").stdout.startswith("src: share, ")
    assert running.run("%sandbox run -- cat /mnt/src/a.txt").stdout == "of the host"
    disk = running.run("%sandbox attach --disk data=data.qcow2,size=64M,format=ext4,target=/data")
    assert disk.stdout.startswith("data: disk, qcow2, ")
    assert running.run("%sandbox run -- touch /data/x").error == ""
    (shown,) = running.run("%sandbox devices").displays
    assert [line.split()[0] for line in shown["text/plain"].splitlines()] == ["name", "src", "data"]
    assert running.complete("%sandbox detach ") == ["data", "src"]
    assert "'src' is taken" in running.run("%sandbox attach --share src=src").error
    assert running.run("%sandbox detach data").stdout == "data: detached\n"
    assert running.run("%sandbox detach src").stdout == "src: detached\n"
    assert (folder / "data.qcow2").stat().st_size > 0


def test_what_cannot_be_attached_is_one_line(running, folder):
    for cell, says in [
        ("%sandbox attach", "--disk --share --nic --user-nic"),
        ("%sandbox attach --disk x=/no/such", "/no/such"),
        ("%sandbox attach --share x", "TAG=PATH"),
        ("%sandbox attach --nic /no/such.sock", "/no/such.sock"),
        ("%sandbox attach --share x=src --disk y=z", "not allowed with"),
        ("%sandbox detach nothing", "'nothing' is not attached"),
    ]:
        error = running.run(cell).error
        assert says in error
        assert error.count("\n") == 0


def test_files_and_folders_are_copied_both_ways(running, folder):
    (copied,) = running.run("%sandbox cp src :/root/copy").displays[-1:]
    assert copied["text/plain"] == "/root/copy: 1 file, 1 folder, 11 B"
    assert running.run("%sandbox run -- cat /root/copy/a.txt").stdout == "of the host"
    assert running.run("name = 'a.txt'\n%sandbox cp sandbox:/root/copy/{name} back.txt").error == ""
    assert (folder / "back.txt").read_text() == "of the host"
    assert "one of the two is in a guest" in running.run("%sandbox cp a b").error
    assert "one of the two is in a guest" in running.run("%sandbox cp :/a :/b").error
    assert "/no/such" in running.run("%sandbox cp :/no/such b").error
    assert "no sandbox 'web'" in running.run("%sandbox cp web:/a b").error


def test_a_port_of_the_guest_is_one_of_the_host_until_it_is_closed(running, folder):
    running.run("%%sandbox run --bg --out server\nwhile printf 'hello' | nc -l -p 80; do :; done")
    listening = "grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6"
    assert running.run(f"%%sandbox run --timeout 20\nuntil {listening}; do sleep 0.1; done").error == ""
    said = running.run("%sandbox forward 0:80").stdout
    assert said.endswith(" leads to port 80 of the guest\n")
    port = int(said.split("/")[2].rpartition(":")[2])
    read = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).recv(9)"
    assert running.run(read).displays == [{"text/plain": "b'hello'"}]
    assert running.run("%sandbox forward").stdout == said
    assert "is taken" in running.run(f"%sandbox forward {port}:81").error
    assert running.run(f"%sandbox forward --close {port}").stdout == f"port {port}: closed\n"
    assert "ConnectionRefusedError" in running.run(read).error
    assert "%sandbox forward lists them" in running.run(f"%sandbox forward --close {port}").error
    assert running.run("%sandbox forward").stdout == ""
    assert "HOST:GUEST is needed" in running.run("%sandbox forward 80").error
    running.run("server.stop()")


def test_ports_end_with_their_machine_and_come_back_with_a_restart(kernel):
    said = kernel.run("%sandbox start --forward 0:80").error or kernel.run("%sandbox forward").stdout
    assert said.endswith(" leads to port 80 of the guest\n")
    kernel.run("box = get_ipython().magics_manager.registry['SandboxMagics'].session.find(None)")
    kernel.run("start, box.start = box.start, None")
    assert kernel.run("%sandbox restart").error != ""
    kernel.run("box.start = start")
    assert kernel.run("%sandbox forward").stdout == ""
    assert kernel.run("%sandbox restart").error == ""
    assert kernel.run("%sandbox forward").stdout == said
    assert kernel.run("box.stop(); box.start()").error == ""
    assert kernel.run("%sandbox forward").stdout == ""
    assert kernel.run("%sandbox restart").error == ""
    assert kernel.run("%sandbox forward").stdout == ""
