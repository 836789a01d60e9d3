"""Packages are read without dpkg."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import deb

from . import fakes

FILES = {"usr/bin/tool": b"\x7fELF tool", "etc/conf": b"x = 1\n"}
CONTROL = "Package: fake\nVersion: 1.0\nArchitecture: all\nMaintainer: someone\nDescription: fake\n"


def contents(path, scratch):
    with deb.open_data(path, scratch) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


@pytest.mark.parametrize("compression", ["xz", "zstd", "gzip", "none"])
def test_every_compression_is_read(tmp_path, compression):
    path = tmp_path / "fake.deb"
    path.write_bytes(fakes.deb(FILES, CONTROL, compression))
    assert contents(path, tmp_path) == {f"./{name}": data for name, data in FILES.items()}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
@pytest.mark.parametrize("compression", ["xz", "gzip", "none"])
def test_what_dpkg_deb_builds_is_read(tmp_path, compression):
    folder = fakes.write_tree(tmp_path / "in", FILES | {"DEBIAN/control": CONTROL.encode()})
    command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", folder, tmp_path / "real.deb"]
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "real.deb", tmp_path) == {f"./{name}": data for name, data in FILES.items()}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin with !<arch>"),
        (b"MZ" * 100, "does not begin with !<arch>"),
        (fakes.deb(FILES, CONTROL)[:-20], "bytes early"),
        (fakes.deb(FILES, CONTROL)[:100], "header is damaged"),
        (fakes.deb(FILES, CONTROL).replace(b"data.tar", b"date.tar"), "no member data.tar"),
        (fakes.deb(FILES, CONTROL)[:-40] + bytes(40), "damaged"),
    ],
)
def test_what_is_no_whole_package_is_refused_with_the_reason(tmp_path, data, reason):
    path = tmp_path / "bad.deb"
    path.write_bytes(data)
    with pytest.raises(InvalidArgument, match=f"bad.deb is not a whole Debian package: .*{reason}"):
        contents(path, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.deb"]
