"""Whole files, in and out of the guest."""

from __future__ import annotations

import os

import pytest

from sandbox_nb import InvalidArgument, NotFound, SandboxError


@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_000])
def test_bytes_come_back_as_they_went(sb, size):
    data = os.urandom(size)
    sb.write("/tmp/blob", data)
    assert sb.read("/tmp/blob") == data
    sb.run("rm /tmp/blob")


def test_text_is_utf8_and_a_mode_is_kept(sb):
    sb.write("/tmp/hello.sh", "#!/bin/sh\necho grüß\n", mode=0o755)
    assert sb.run(["/tmp/hello.sh"]).stdout == "grüß\n"
    sb.write("/tmp/hello.sh", "#!/bin/sh\necho again\n")
    assert sb.run(["/tmp/hello.sh"]).stdout == "again\n"
    sb.run("rm /tmp/hello.sh")


def test_a_file_without_a_size_is_read_to_its_end(sb):
    assert sb.read("/proc/version").startswith(b"Linux version")


def test_a_missing_file_is_named(sb):
    with pytest.raises(NotFound, match="/no/such/file"):
        sb.read("/no/such/file")
    with pytest.raises(NotFound, match="/no/such"):
        sb.write("/no/such/file", b"x")


def test_a_folder_is_no_file(sb):
    with pytest.raises(SandboxError, match="/tmp"):
        sb.read("/tmp")


@pytest.mark.timeout(20)  # a call that fails at once ends the transfer with it, not 30 s later
def test_a_relative_path_is_refused(sb):
    with pytest.raises(InvalidArgument, match="notes"):
        sb.read("notes")
    with pytest.raises(InvalidArgument, match="notes"):
        sb.write("notes", bytes(5_000_000))


def test_a_full_guest_says_so_and_keeps_the_old_file(sb):
    sb.run(
        "mkdir -p /tmp/small && mount -t tmpfs -o size=64k none /tmp/small && echo old > /tmp/small/f", check=True
    )
    with pytest.raises(SandboxError, match="(?i)space"):
        sb.write("/tmp/small/f", bytes(1_000_000))
    assert sb.read("/tmp/small/f") == b"old\n"
    assert sb.run("ls /tmp/small").stdout == "f\n"
    sb.run("umount /tmp/small", check=True)
