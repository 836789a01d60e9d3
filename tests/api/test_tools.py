"""The commands that look after images, as ``sandbox-nb`` runs them; what they act on is stood in for."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from sandbox_nb import binaries, cli, host
from sandbox_nb.errors import NotFound
from sandbox_nb.guest import image
from sandbox_nb.vm import template


def test_building_hands_the_parts_on_and_ends_with_the_place(monkeypatch, capsys, tmp_path):
    asked = {}

    def build(name, *, progress, **parts):
        asked.update(parts, name=name)
        for done in (0, 50, 100):
            progress("packages", done, 100)
        progress("initrd", 0, 0)
        return types.SimpleNamespace(folder=tmp_path)

    monkeypatch.setattr(image, "build", build)
    words = ["python", "--arch", "aarch64", "--kernel", "/k", "--modules", "/m"]
    assert cli.main(["image", "build", *words]) == 0
    parts = {"kernel": "/k", "modules": "/m", "busybox": None, "rootfs": None}
    assert asked == {"name": "python", "arch": "aarch64", "agent": binaries.agent("aarch64"), **parts}
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}\n"
    assert err == "packages …\ninitrd …\n", "each stage once, where standard error is no terminal"


def test_a_terminal_sees_the_share_on_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shown = cli.ShowProgress()
    for done in (0, 50, 100):
        shown("packages", done, 100)
    _, *shares = capsys.readouterr().err.split("\r\033[K")
    assert shares == ["packages   0 %", "packages  50 %", "packages 100 %\n"]


def test_removing_prints_what_is_gone_or_says_what_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(image, "remove", lambda name: [Path("/cache/one"), Path("/cache/two")])
    assert cli.main(["image", "rm", "base"]) == 0
    assert capsys.readouterr().out == "/cache/one\n/cache/two\n"

    def nothing(name):
        raise NotFound(f"there is no image {name!r} in /cache")

    monkeypatch.setattr(image, "remove", nothing)
    assert cli.main(["image", "rm", "no"]) == cli.EXIT_FAILED
    assert capsys.readouterr().err == "sandbox-nb: there is no image 'no' in /cache\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["template", "build", "--warm", "off"], cli.EXIT_USAGE, "that is a start that makes no template"),
        (["template", "rm", "abc"], cli.EXIT_FAILED, "key starts with abc; see: sandbox-nb template list"),
        (["run"], cli.EXIT_USAGE, "sandbox-nb run: CMD is needed, the command to run"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, tmp_path, words, status, said):
    monkeypatch.setattr(host, "templates_dir", lambda: tmp_path)
    monkeypatch.setattr(template, "list_templates", lambda folder: [])
    assert cli.main(words) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_template_named_twice_is_removed_once_and_none_beside_one_that_is_not_there(monkeypatch, capsys):
    found = [types.SimpleNamespace(folder=Path(f"/cache/{name}")) for name in ("8b1", "8b2", "9c3")]
    removed = []
    monkeypatch.setattr(template, "list_templates", lambda folder: found)
    monkeypatch.setattr(template, "remove", removed.append)
    assert cli.main(["template", "rm", "9", "nope"]) == cli.EXIT_FAILED
    assert removed == []
    assert cli.main(["template", "rm", "8b", "8b2", "all"]) == 0
    assert removed == found
    assert capsys.readouterr().out == "8b1\n8b2\n9c3\n"


def test_with_nothing_said_it_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    assert "run a command in it" in capsys.readouterr().out


def test_an_interrupt_is_the_status_of_a_shell(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "remove", interrupted)
    assert cli.main(["image", "rm", "base"]) == 130
