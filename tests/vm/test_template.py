"""Templates as files: holes, marks, locks, and what is not believed."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from sandbox_nb.vm import template

MIB = 1 << 20


@pytest.fixture
def ram():
    """8 MiB of which the second and the last are written, and the fourth written with zeros."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, 8 * MIB)
    os.pwrite(fd, os.urandom(MIB), MIB)
    os.pwrite(fd, bytes(MIB), 3 * MIB)
    os.pwrite(fd, b"end", 8 * MIB - 3)
    yield fd
    os.close(fd)


def made(cache, name, ram):
    with template.building(cache, name) as folder:
        (folder / template.STATE).write_bytes(b"state of " + name.encode())
        mark = template.write_ram(ram, 8 * MIB, folder)
        template.write_record(folder, 8 * MIB, mark, {"made": "by a test"})
    return template.find(cache, name)


def test_ram_comes_back_as_it_went_and_holes_stay_holes(tmp_path, ram):
    saved = made(tmp_path, "a", ram)
    assert saved.ram.stat().st_blocks * 512 < 2 * MIB
    copy = os.memfd_create("copy")
    os.ftruncate(copy, saved.size)
    template.copy_ram(saved, copy)
    assert os.pread(copy, 8 * MIB, 0) == os.pread(ram, 8 * MIB, 0)
    assert os.fstat(copy).st_blocks * 512 < 2 * MIB
    os.close(copy)


def tear_state(folder):
    (folder / template.STATE).write_bytes(b"something else")


def tear_ram(folder):
    os.truncate(folder / template.RAM, 5 * MIB)


def tear_mark(folder):
    with (folder / template.RAM).open("r+b") as file:
        file.seek(8 * MIB)
        file.write(bytes(16))


def tear_record(folder):
    (folder / template.RECORD).write_text("{")


def lose_record(folder):
    (folder / template.RECORD).unlink()


@pytest.mark.parametrize("tear", [tear_state, tear_ram, tear_mark, tear_record, lose_record])
def test_a_torn_template_is_removed_and_never_believed(tmp_path, ram, tear):
    saved = made(tmp_path, "a", ram)
    tear(saved.folder)
    assert template.find(tmp_path, "a") is None
    assert not saved.folder.exists()


def test_a_process_short_of_descriptors_removes_no_template(tmp_path, ram):
    saved = made(tmp_path, "a", ram)
    folder = saved.folder
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))  # for its folder, and nothing in it
    try:
        assert template.find(tmp_path, "a") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert template.find(tmp_path, "a") is not None
    assert os.listdir(tmp_path) == [folder.name]


def test_what_was_found_is_never_mixed_with_what_takes_its_place(tmp_path, ram):
    saved = made(tmp_path, "a", ram)
    template.remove(saved)
    os.pwrite(ram, b"other", 0)
    other = made(tmp_path, "a", ram)
    for path in (saved.ram, saved.state):
        with pytest.raises(FileNotFoundError):
            path.open("rb")
    template.remove(saved)
    assert other.state.read_bytes() == b"state of a", "it is not the one that was found first"
    assert template.find(tmp_path, "a") is not None


def test_a_template_is_let_go_with_its_last_user(tmp_path, ram):
    before = os.listdir("/proc/self/fd")
    saved = made(tmp_path, "a", ram)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del saved
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("look", [template.find, lambda cache, name: template.prune(cache, keep="")])
def test_what_takes_the_place_of_a_torn_template_is_not_removed_for_it(tmp_path, ram, monkeypatch, look):
    torn = made(tmp_path, "a", ram).folder
    lose_record(torn)
    checked = template._checked

    def replaced(folder, inside):
        monkeypatch.setattr(template, "_checked", checked)
        torn.rename(tmp_path / ".elsewhere")
        made(tmp_path, "a", ram)
        return checked(folder, inside)

    monkeypatch.setattr(template, "_checked", replaced)
    look(tmp_path, "a")
    assert template.find(tmp_path, "a") is not None


def test_what_is_published_while_others_are_looked_through_is_kept(tmp_path, ram, monkeypatch):
    made(tmp_path, "a", ram)
    checked = template._checked

    def published(folder, inside):
        monkeypatch.setattr(template, "_checked", checked)
        with monkeypatch.context() as patched:
            patched.setattr(template, "prune", lambda *_, **__: [])
            made(tmp_path, "b", ram)
        return checked(folder, inside)

    monkeypatch.setattr(template, "_checked", published)
    template.prune(tmp_path, keep="")
    assert template.find(tmp_path, "b") is not None


def test_who_builds_it_anew_right_after_it_was_published_is_let_be(tmp_path, ram, monkeypatch):
    sync, other = template._sync, tmp_path / ".a.new" / template.STATE

    def build(path):
        if path == tmp_path:
            other.parent.mkdir()
            other.write_text("half")
        sync(path)

    monkeypatch.setattr(template, "_sync", build)
    with monkeypatch.context() as patched:
        patched.setattr(template, "prune", lambda *_, **__: [])
        assert made(tmp_path, "a", ram) is not None
    assert other.read_text() == "half"


def test_a_build_that_fails_publishes_nothing(tmp_path):
    with pytest.raises(RuntimeError), template.building(tmp_path, "a"):
        raise RuntimeError
    assert template.find(tmp_path, "a") is None
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_a_dead_builder_left_is_swept_by_the_next(tmp_path, ram):
    (tmp_path / ".a.new").mkdir()
    (tmp_path / ".a.new" / template.STATE).write_text("half")
    assert made(tmp_path, "a", ram) is not None


def test_only_one_builds_a_template(tmp_path):
    seen = []
    with template.building(tmp_path, "a") as first:
        assert first is not None

        def other():
            with template.building(tmp_path, "a") as second:
                seen.append(second)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        (first / "x").touch()
    assert seen == [None]


def test_the_key_changes_with_anything():
    parts = {"qemu": ["/usr/bin/qemu", 1, 2], "argv": ["-m", "256M"]}
    keys = {template.key(parts), template.key({**parts, "argv": ["-m", "512M"]}), template.key({**parts, "x": 1})}
    assert len(keys) == 3
    assert template.key(dict(reversed(parts.items()))) in keys


def test_the_least_recently_used_go_when_the_cache_is_full_and_the_old_in_any_case(tmp_path, ram):
    for number, name in enumerate("abc"):
        saved = made(tmp_path, name, ram)
        used = time.time() - 1000 * (3 - number)
        os.utime(saved.folder, (used, used))
    usage = saved.disk_usage()
    assert [path.name for path in template.prune(tmp_path, keep="c", max_bytes=2 * usage)] == ["a"]
    assert [path.name for path in template.prune(tmp_path, keep="c", max_age=1500)] == ["b"]
    assert [found.folder.name for found in template.list_templates(tmp_path)] == ["c"]
    template.prune(tmp_path, keep="c", max_bytes=0)
    assert template.find(tmp_path, "c") is not None


def test_what_dead_builders_of_other_templates_left_is_swept_and_not_what_is_built_now(tmp_path, ram):
    (tmp_path / ".dead.new").mkdir()
    (tmp_path / "torn").mkdir()
    with template.building(tmp_path, "alive") as alive:
        made(tmp_path, "a", ram)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".alive.new", "a"]
        assert alive.is_dir()


def test_a_full_disk_publishes_nothing(tmp_path, ram):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            made(tmp_path, "a", ram)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
