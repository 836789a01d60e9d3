"""Options written down, as TOML and as Python, and read again: the same machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from strategies import options, plain

import sandbox_nb
from sandbox_nb import NIC, Disk, DiskFlags, InvalidArgument, NotFound, Options, UserNIC, config
from sandbox_nb.devices import NetworkFlags


@settings(deadline=None)
@given(options())
def test_toml_says_the_same_machine(machine):
    assert plain(Options.from_toml(machine.to_toml())) == plain(machine)


@settings(deadline=None)
@given(options())
def test_python_says_the_same_machine(machine):
    class Recorder:
        @staticmethod
        def started(**keywords):
            return Options().applying((), keywords)

    names = {name: getattr(sandbox_nb, name) for name in sandbox_nb.__all__}
    assert plain(eval(config.to_python(machine), {**names, "Sandbox": Recorder})) == plain(machine)


def test_what_is_not_said_is_not_written():
    assert Options().to_toml() == ""
    assert config.to_python(Options()) == "Sandbox.started()"


def test_a_file_as_people_write_it(tmp_path):
    (tmp_path / "machine.toml").write_text(
        """
        cpu = 2
        memory = 512
        warm = false
        init_args = ["-debug", [255, 1]]

        [[disks]]
        block_id = "data"
        mount_path = "data.img"
        readonly = true
        vmdk = true

        [[nics]]
        endpoint = "/run/net.sock"
        vfkit = true

        [[nics]]
        forward = { 8080 = 80 }
        """
    )
    assert config.load(tmp_path / "machine.toml") == Options(
        cpu=2,
        memory=512,
        warm="off",
        init_args=("-debug", b"\xff\x01"),
        disks=(Disk("data", "data.img", DiskFlags.READONLY | DiskFlags.VMDK),),
        nics=(NIC("/run/net.sock", flags=NetworkFlags.VFKIT), UserNIC({8080: 80})),
    )


@pytest.mark.parametrize("value", [None, 5, Path("/machine.toml"), b"cpu = 2"])
def test_what_is_no_text_is_no_toml(value):
    with pytest.raises(
        InvalidArgument, match=r"is no TOML: text is needed; that of a file is Path\(…\).read_text"
    ):
        Options.from_toml(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpu = ", "no TOML"),
        ("cpu = 2", "without memory"),
        ("memroy = 512", "'memroy'"),
        ("disks = 5", "disks"),
        ("disks = [5]", r"\[\[disks\]\]"),
        ("[[disks]]\nblock_id = 'a'", "without mount_path"),
        ("[[disks]]\nblock_id = 'a'\nmount_path = 'b'\ntraget = '/x'", "did you mean target"),
        ("[[disks]]\nblock_id = 'a'\nmount_path = 'b'\nreadonly = 'yes'", "readonly='yes'"),
        ("[[disks]]\nblock_id = 'a'\nmount_path = 'b'\ntarget = 'x'", "target='x'"),
        ("[[filesystems]]\ntag = 'a'\nmount_path = 'b'\nreadonly = 1", "readonly=1"),
        ("[[nics]]\nendpoint = 'a'\nmode = 'tcp'", "gram or stream"),
        ("[[nics]]\nforward = { a = 80 }", "'a'"),
        ("[[nics]]\nforward = { 80 = 'b' }", "'b'"),
        ("[[nics]]\nforward = 80", "forward=80"),
        ("init_args = [[256]]", "256"),
        ("init_args = 'a'", "init_args"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, text, says):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=says) as caught:
        config.load(tmp_path / "wrong.toml")
    assert "wrong.toml" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(NotFound, match="none.toml"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match="binary.toml"):
        config.load(tmp_path / "binary.toml")


def test_a_path_that_is_no_utf8_cannot_be_written():
    with pytest.raises(InvalidArgument, match="UTF-8"):
        Options(kernel="/boot/\udcff").to_toml()
