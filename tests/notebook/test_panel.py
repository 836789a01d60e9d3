"""The configuration panel's form: what it says is what was put in, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import errno
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from ipywidgets.widgets import Layout, Style, widget
from strategies import options, plain

import sandbox_nb
from sandbox_nb import Disk, DiskFlags, Filesystem, Options, Sandbox, SandboxError, Stopped, UserNIC
from sandbox_nb.config import from_toml
from sandbox_nb.grammar import Parser, add_machine_options, machine_options
from sandbox_nb.notebook import panel as panel_module
from sandbox_nb.notebook import panel_paths
from sandbox_nb.notebook.magics import words
from sandbox_nb.notebook.panel import CLOSED, SandboxPanel
from sandbox_nb.notebook.panel_copy import as_magic, as_python, as_shell, as_toml
from sandbox_nb.notebook.panel_paths import HostPath


@pytest.fixture
def panel():
    made = SandboxPanel(options=Options())
    yield made
    made.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options())
def test_the_form_says_what_was_put_in(said):
    panel = SandboxPanel(options=said)
    try:
        assert plain(panel.options) == plain(said)
    finally:
        panel.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options())
def test_what_is_copied_starts_an_equal_machine(said):
    names = {name: getattr(sandbox_nb, name) for name in sandbox_nb.__all__}
    got = {}
    names["Sandbox"] = type("Sandbox", (), {"started": staticmethod(lambda **keywords: got.update(keywords))})
    source = as_python(said, "sandbox")
    exec(source.partition("\n")[2], names)
    assert plain(Options().applying((), got)) == plain(said)
    try:
        toml, line = as_toml(said, "sandbox"), as_magic(said, "sandbox")
    except SandboxError:
        return  # what only Python can say; that is told where it would stand
    assert plain(from_toml(toml)) == plain(said)
    parser = Parser()
    add_machine_options(parser)
    typed = words.split(line, {})
    assert typed[:2] == ["%sandbox", "start"]
    assert plain(machine_options(parser.parse_args(typed[2:]))) == plain(said)


def test_every_option_has_a_control(panel):
    shown = set(panel._plain) | {"disks", "filesystems", "nics", "init_args"}
    assert shown == {field.name for field in dataclasses.fields(Options)}


def test_what_is_copied_has_the_name_of_the_machine():
    assert as_magic(Options(cpu=2, memory=512), "web") == "%sandbox start --name web --cpu 2 --memory 512"
    assert as_python(Options(cpu=2, memory=512), "web").endswith("Sandbox.started(name='web', cpu=2, memory=512)")
    assert as_python(Options(), "web").endswith("Sandbox.started(name='web')")
    assert as_shell(["q", "-m", "1", "-x"]) == "q \\\n  -m 1 \\\n  -x"


def test_amounts_are_named_with_their_units(panel):
    fields = panel.children[1].children[0].children
    names = [re.sub("<[^>]*>", "", field.children[0].value) for field in fields]
    assert {"cpu", "memory, MiB", "host memory, MiB", "idle timeout, seconds"} <= set(names)


def type_in(panel, name, text):
    panel._plain[name]._input.value = text


def test_what_is_wrong_is_said_as_the_api_says_it_and_where(panel):
    type_in(panel, "cpu", "2")
    assert "cpu=2 without memory: give both, as in cpu=2, memory=256" in panel._problem.value
    assert "sandbox-nb-wrong" in panel._plain["cpu"]._input._dom_classes
    assert panel._start.disabled
    type_in(panel, "memory", "lots")
    assert "memory=&#x27;lots&#x27;" in panel._problem.value
    type_in(panel, "memory", "512")
    assert panel._problem.value == ""
    assert "sandbox-nb-wrong" not in panel._plain["cpu"]._input._dom_classes
    assert not panel._start.disabled
    assert panel.options == Options(cpu=2, memory=512)


def test_rows_are_added_judged_and_taken_away(panel):
    panel._disks.adders[0].click()
    (row,) = panel._disks.rows
    assert "Disk without block_id" in row.error.value
    assert panel._problem.value == ""
    assert panel._start.disabled
    row._controls["block_id"].value = "data"
    row._controls["mount_path"].value = "/srv/data.img"
    row._controls["readonly"].value = True
    assert panel.options.disks == (Disk("data", "/srv/data.img", DiskFlags.READONLY),)
    row._controls["size"].value = "2G"
    assert "READONLY forbids it" in row.error.value
    row._controls["size"].value = "3 GB"
    assert "size=" in row.error.value
    row.remove.click()
    assert panel.options == Options()
    assert not panel._start.disabled


def left_since(before):
    """Widgets that are there and were not, without their looks."""
    there = [one for key, one in widget._instances.items() if key not in before]
    return [one for one in there if not isinstance(one, (Layout, Style))]


def test_what_is_taken_away_leaves_no_widget():
    before = set(widget._instances)
    panel = SandboxPanel(options=Options())
    without_rows = set(widget._instances)
    for _ in range(2):
        panel._shares.adders[0].click()
        panel._arguments.adders[0].click()
    panel._shares.rows[0].remove.click()
    panel.options = Options()
    assert set(widget._instances) == without_rows
    panel._disks.adders[0].click()
    panel.close()
    panel.close()
    assert left_since(before) == []


def test_a_panel_that_is_shown_closes_those_shown_before_for_the_same_machine(monkeypatch):
    shown = []
    monkeypatch.setattr(panel_module, "display", lambda bundle, **how: shown.append((bundle, how)))
    other, first, second = (SandboxPanel(Sandbox(name)) for name in ("other", "web", "web"))
    for panel in (other, first):
        panel._ipython_display_()
    shown.clear()
    second._ipython_display_()
    (left, how), (bundle, _) = shown
    assert how["display_id"] == first._display_id
    assert how["update"]
    assert left == {"text/plain": f"web: new\n%sandbox start --name web\n{CLOSED}"}
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert not first._refresh()
    assert other._refresh()
    first._ipython_display_()
    assert shown[-1][0] == left
    for panel in (other, second):
        panel.close()


def test_two_rows_that_clash_are_told_above_as_it_is_nobodys_alone(panel):
    panel.options = Options(filesystems=(Filesystem("a", "/1"), Filesystem("b", "/2")))
    panel._shares.rows[1]._controls["tag"].value = "a"
    assert "is taken" in panel._problem.value
    assert [row.error.value for row in panel._shares.rows] == ["", ""]


def test_cards_of_both_kinds_and_arguments(panel):
    for button in panel._cards.adders:
        button.click()
    user, sock = panel._cards.rows
    user._controls["forward"].value = {"8080": 80}
    assert user._controls["forward"]._input.value == "8080:80"
    sock._controls["endpoint"].value = "/run/net.sock"
    sock._controls["dns"]._input.value = "1.1.1.1,  8.8.8.8"
    panel._arguments.adders[0].click()
    panel._arguments.rows[0]._control._input.value = "-debug"
    found = panel.options
    assert found.nics[0] == UserNIC({8080: 80})
    assert found.nics[1].dns == ("1.1.1.1", "8.8.8.8")
    assert found.init_args == ("-debug",)
    sock._controls["dns"]._input.value = "nobody"
    assert "dns='nobody' is no address" in sock.error.value.replace("&#x27;", "'")


def test_what_cannot_be_typed_is_kept_and_locked(panel):
    said = Options(init_args=(b"\xff",), kernel="/a\udcff")
    panel.options = said
    assert panel._arguments.rows[0]._control.box.disabled
    assert panel._plain["kernel"].box.disabled
    assert panel.options == said


def test_copies_follow_what_is_typed_and_say_when_they_cannot(panel):
    type_in(panel, "image", "python")
    assert panel._copy.text == "%sandbox start --image python"
    panel._copy_as.value = "as TOML"
    assert panel._copy.text == 'image = "python"\n'
    panel._copy_as.value = "as Python"
    assert panel._copy.text.endswith("Sandbox.started(image='python')")
    type_in(panel, "accel", "kvm")
    type_in(panel, "standby", "x")
    assert panel._copy.text.startswith("# standby='x'")


def test_a_path_is_picked_from_what_is_there(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "disk.img").touch()
    (tmp_path / ".hidden").touch()
    path = HostPath()
    path.text.value = str(tmp_path / "not there")
    path._browse.click()
    assert list(path._list.options) == ["../", "inner/"]
    path._list.value = "inner/"
    assert list(path._list.options) == ["../", "disk.img"]
    path._list.value = "../"
    assert "inner/" in path._list.options
    path._list.value = "inner/"
    path._list.value = "disk.img"
    assert path.text.value == str(tmp_path / "inner" / "disk.img")
    assert path._chooser.layout.display == "none"
    path.close()


def test_a_folder_is_picked_by_its_button_and_no_file_is(tmp_path):
    (tmp_path / "file").touch()
    path = HostPath(folder=True)
    path.text.value = str(tmp_path)
    path._browse.click()
    path._list.value = "file"
    assert path.text.value == str(tmp_path)
    path._list.value = "../"
    _, use = path._chooser.children[1].children
    use.click()
    assert path.text.value == str(tmp_path.parent)
    path.close()


def test_a_folder_says_how_many_more_it_has_and_why_it_cannot_be_listed(tmp_path, monkeypatch):
    for number in range(panel_paths.MAX_ENTRIES + 3):
        (tmp_path / f"{number:04}").touch()
    path = HostPath()
    path.text.value = str(tmp_path)
    path._browse.click()
    assert path._place.value == f"{tmp_path}, 3 more in it"
    assert len(path._list.options) == 1 + panel_paths.MAX_ENTRIES
    path._browse.click()
    assert path._chooser.layout.display == "none"

    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    path._browse.click()
    assert path._place.value == f"{tmp_path} cannot be listed: Permission denied"
    assert path._list.options == ("../",)
    path.close()


@pytest.mark.parametrize("typed", ["x" * 300 + "/y", "~nosuchuser/x"])
def test_of_a_path_that_cannot_be_looked_at_the_nearest_folder_is_listed(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    path = HostPath()
    path.text.value = typed
    path._browse.click()
    assert path._place.value == str(tmp_path)
    path.close()


def test_a_folder_is_listed_whatever_a_link_in_it_leads_to(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("x" * 300)
    path = HostPath()
    path.text.value = str(tmp_path)
    path._browse.click()
    assert path._place.value == str(tmp_path)
    assert list(path._list.options) == ["../", "inner/", "link"]
    path.close()


# With a machine


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.vm
def test_start_attach_detach_and_stop(tmp_path):
    with Sandbox("own") as sandbox:
        panel = SandboxPanel(sandbox, options=Options(filesystems=(Filesystem("first", tmp_path),)))
        panel.machine.follow(panel._refresh)
        panel._start.click()
        until(lambda: sandbox.state.value == "running" and "start in" in panel._said.value)
        assert re.search("running", panel._status.value)
        (first,) = panel._shares.rows
        assert first.attached
        assert panel._plain["cpu"].box.disabled

        panel._shares.adders[0].click()
        second = panel._shares.rows[1]
        second._controls["tag"].value = "second"
        second._controls["mount_path"].value = str(tmp_path / "nothing here")
        second.plug.click()
        until(lambda: "nothing here" in second.error.value)
        assert not second.attached
        second._controls["mount_path"].value = str(tmp_path)
        second.plug.click()
        until(lambda: second.attached or (second.error.value and "nothing" not in second.error.value))
        assert second.attached, second.error.value
        assert {device.name for device in sandbox.devices()} == {"first", "second"}
        second.plug.click()
        until(lambda: not second.attached and second.plug.description == "attach")

        sandbox.detach("first")  # as a cell would
        until(lambda: not first.attached)
        panel._stop.click()
        until(lambda: "stopped" in panel._status.value)
        assert not panel._start.disabled
        panel.close()


@pytest.mark.vm
def test_a_start_that_fails_says_why_and_one_that_is_stopped_is_taken_back(tmp_path):
    with Sandbox("own") as sandbox:
        panel = SandboxPanel(sandbox, options=Options(kernel=str(tmp_path / "no kernel")))
        panel.machine.follow(panel._refresh)
        panel._start.click()
        until(lambda: "no kernel" in panel._said.value)
        until(lambda: "failed" in panel._status.value)
        panel.options = Options(warm="off")
        panel._start.click()
        until(lambda: not panel._stop.disabled and sandbox.state.value == "starting")
        panel._stop.click()
        until(lambda: sandbox.state.value == "stopped")
        panel.close()


@pytest.mark.vm
def test_a_start_of_somebody_elses_is_taken_back_too():
    with Sandbox("own") as sandbox:
        panel = SandboxPanel(sandbox, options=Options())
        panel._start.click()
        until(lambda: "start in" in panel._said.value)
        sandbox.stop()
        call = sandbox.begin_start(warm="off")
        until(lambda: sandbox.state.value == "starting")
        panel._stop.click()
        with pytest.raises(Stopped, match="while it started"):
            call.future.result(60)
        until(lambda: sandbox.state.value == "stopped")
        panel.close()


@pytest.mark.vm
def test_qemus_command_line(panel):
    panel._copy_as.value = "QEMU's command line"
    until(lambda: "-machine" in panel._copy.text)
    assert " \\\n  -m 256M" in panel._copy.text
    type_in(panel, "cpu", "2")
    type_in(panel, "memory", "300")
    until(lambda: "-smp 2" in panel._copy.text)
    panel._copy_as.value = "as magic"
    assert panel._copy.text == "%sandbox start --cpu 2 --memory 300"
