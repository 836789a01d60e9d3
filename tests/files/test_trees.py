"""A tree of the host as records and back, both ends in memory; and records of a guest that means ill."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import threading
import tracemalloc

import pytest
import trees

from sandbox_nb.errors import InvalidArgument, NotFound, ProtocolError, ResourceExhausted, SandboxError
from sandbox_nb.files.info import Tally
from sandbox_nb.files.receiver import TreeReceiver
from sandbox_nb.files.records import LENGTH, RECORD_MAX
from sandbox_nb.files.sender import TreeSender
from sandbox_nb.guest.proto.files_pb2 import Entry

FOLDER, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
END = LENGTH.pack(0)


def record(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def entry(name: bytes | str, mode: int, **fields) -> bytes:
    name = name.encode() if isinstance(name, str) else name
    return record(Entry(name=name, mode=mode, **fields).SerializeToString())


def file(name: bytes | str, content: bytes = b"content", mode: int = FILE) -> bytes:
    return entry(name, mode) + (record(content) if content else b"") + END


def send(source) -> tuple[bytes, Tally]:
    out, tally = io.BytesIO(), Tally()
    TreeSender(out, tally).send(source)
    return out.getvalue(), tally


def receive(data: bytes, target, name: bytes = b"t") -> tuple[str, Tally]:
    tally = Tally()
    return TreeReceiver(io.BytesIO(data), tally).receive(target, name), tally


def test_a_tree_comes_out_as_it_went_in(tmp_path):
    source = trees.make(tmp_path / "source")
    data, sent = send(source)
    path, received = receive(data, tmp_path / "copy")
    assert path == str(tmp_path / "copy")
    assert trees.fingerprint(tmp_path / "copy") == trees.fingerprint(source)
    assert sent == received
    assert (sent.files, sent.folders, sent.links, sent.skipped) == (12, 6, 3, [])


def test_a_tree_goes_into_a_folder_that_is_there_and_fills_up_what_it_finds(tmp_path):
    source = trees.make(tmp_path / "source")
    (tmp_path / "out" / "source" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "source" / "deep" / "mine").write_text("kept")
    (tmp_path / "out" / "source" / "large").symlink_to("/etc/passwd")
    path, _ = receive(send(source)[0], tmp_path / "out", b"source")
    assert path == str(tmp_path / "out" / "source")
    assert (tmp_path / "out" / "source" / "deep" / "mine").read_text() == "kept"
    (tmp_path / "out" / "source" / "deep" / "mine").unlink()
    os.utime(tmp_path / "out" / "source" / "deep", ns=(0, (source / "deep").stat().st_mtime_ns))
    assert trees.fingerprint(tmp_path / "out" / "source") == trees.fingerprint(source)


def test_the_content_alone_is_named_by_a_dot_as_cp_has_it(tmp_path):
    source = trees.make(tmp_path / "source")
    (tmp_path / "out").mkdir(mode=0o700)
    path, _ = receive(send(f"{source}/.")[0], tmp_path / "out", b"")
    assert path == str(tmp_path / "out")
    copied, sent = trees.fingerprint(tmp_path / "out"), trees.fingerprint(source)
    assert copied.pop(b".")[1] == 0o700, "it was there, and is nobody's to change"
    del sent[b"."]
    assert copied == sent


def test_one_file_is_a_tree_too_and_a_link_to_it_is_followed_at_the_top(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    data, tally = send(tmp_path / "link")
    receive(data, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"data"
    assert not (tmp_path / "copy").is_symlink()
    assert (tally.files, tally.size) == (1, 4)


def test_a_relative_target_lies_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert receive(file("x"), "copy", b"x")[0] == "copy"
    assert receive(file("x"), ".", b"x")[0] == "./x"
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "x").read_bytes() == b"content"


def test_what_is_no_file_is_skipped_and_named(tmp_path):
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "source" / "socket"))
    data, tally = send(tmp_path / "source")
    assert sorted(tally.skipped) == ["pipe", "socket"]
    receive(data, tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == []
    _, tally = receive(entry("t", FOLDER) + entry("dev", stat.S_IFBLK) + END, tmp_path / "other")
    assert tally.skipped == ["dev"]
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.parametrize(
    ("source", "error"), [("nothing", NotFound), ("file/below", NotFound), ("pipe", InvalidArgument)]
)
def test_what_cannot_be_sent_is_said_by_name(tmp_path, source, error):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(error, match=source):
        send(tmp_path / source)


def test_a_name_that_is_gone_before_it_is_opened_takes_no_other_name_of_the_file_along(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("content")
    for name in "bc":
        os.link(tmp_path / "source" / "a", tmp_path / "source" / name)
    gone, really = [], os.open

    def vanish(path, flags, *args, dir_fd=None, **keywords):
        if dir_fd is not None and not gone:
            gone.append(os.fsdecode(path))
            os.unlink(path, dir_fd=dir_fd)
        return really(path, flags, *args, dir_fd=dir_fd, **keywords)

    monkeypatch.setattr(os, "open", vanish)
    data, _ = send(tmp_path / "source")
    monkeypatch.undo()
    receive(data, tmp_path / "copy")
    left = sorted(set("abc") - set(gone))
    assert sorted(os.listdir(tmp_path / "copy")) == left
    assert {(tmp_path / "copy" / name).read_text() for name in left} == {"content"}
    assert len({(tmp_path / "copy" / name).stat().st_ino for name in left}) == 1


def test_a_place_that_cannot_be_is_said_by_name(tmp_path):
    for target in ("no/where", "new/", "new/.."):
        with pytest.raises(NotFound, match=target.partition("/")[0]):
            receive(file("x"), f"{tmp_path}/{target}")
    (tmp_path / "x").mkdir()
    with pytest.raises(InvalidArgument, match="/x: "):
        receive(file("x"), tmp_path, b"x")
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    (tmp_path / "old").write_text("as it was")
    for torn in (entry("old", FILE) + record(b"half"), entry("old", FILE) + record(b"half")[:-1]):
        with pytest.raises(ConnectionResetError):
            receive(torn, tmp_path)
        assert os.listdir(tmp_path) == ["old"]
        assert (tmp_path / "old").read_text() == "as it was"


# What a guest may send that means ill. Nothing outside the target may be made, changed or read.


@pytest.fixture
def outside(tmp_path):
    """A folder beside the target, as full as it must stay."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    before = trees.fingerprint(tmp_path / "outside")
    yield tmp_path / "outside"
    assert trees.fingerprint(tmp_path / "outside") == before


@pytest.mark.parametrize("name", [b"..", b".", b"../outside/new", b"/etc/new", b"a/b", b"nul\0", b"x" * 256, b""])
@pytest.mark.parametrize("kind", [FILE, FOLDER, LINK])
def test_a_name_that_is_a_path_is_refused(tmp_path, outside, name, kind):
    with pytest.raises(ProtocolError):
        receive(entry("t", FOLDER) + entry(name, kind, target=b"x") + END + END, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["t"]
    assert os.listdir(tmp_path / "out" / "t") == []


@pytest.mark.parametrize("name", [b".bashrc", b""])
@pytest.mark.parametrize("tree", ["file", "folder"])
def test_the_name_of_the_tree_is_not_the_guests_to_choose(tmp_path, outside, name, tree):
    (tmp_path / "out").chmod(0o700)
    data = file(name) if tree == "file" else entry(name, FOLDER | 0o777) + file(".bashrc") + END
    path, _ = receive(data, tmp_path / "out", b"report")
    assert path == str(tmp_path / "out" / "report")
    assert os.listdir(tmp_path / "out") == ["report"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_a_file_where_the_content_of_a_folder_was_asked_for_is_refused(tmp_path, outside):
    with pytest.raises(SandboxError):
        receive(file("x"), tmp_path / "out", b"")
    assert os.listdir(tmp_path / "out") == []


def test_a_link_in_the_way_is_not_followed(tmp_path, outside):
    through = (
        entry("t", FOLDER) + entry("way", LINK, target=bytes(outside)) + entry("way", FOLDER) + file("precious")
    )
    with pytest.raises(SandboxError, match="way"):
        receive(through + END + END, tmp_path / "out")
    over = entry("t", FOLDER) + entry("f", LINK, target=bytes(outside / "precious")) + file("f", b"new")
    receive(over + END, tmp_path / "over")
    assert (tmp_path / "over" / "f").read_bytes() == b"new"
    assert not (tmp_path / "over" / "f").is_symlink()


def test_a_link_that_was_there_before_is_not_followed_either(tmp_path, outside):
    (tmp_path / "out" / "t").symlink_to(outside)
    with pytest.raises(SandboxError, match="t"):
        receive(entry("t", FOLDER) + file("precious", b"gone") + END, tmp_path / "out")


@pytest.mark.parametrize(
    "link", [b"../outside/precious", b"/etc/passwd", b"way/precious", b"./f", b"..", b"", b"a//f"]
)
def test_a_further_name_reaches_no_file_outside(tmp_path, outside, link):
    first = entry("t", FOLDER) + entry("way", LINK, target=bytes(outside)) + file("f")
    if link:
        with pytest.raises(SandboxError):
            receive(first + entry("g", FILE, link=link) + END, tmp_path / "out")
    with pytest.raises(ProtocolError):
        receive(entry("g", FILE, link=link or b"f"), tmp_path / "out")
    assert (outside / "precious").stat().st_nlink == 1


def test_a_further_name_may_be_in_another_folder_but_takes_no_folders_place(tmp_path):
    data = entry("t", FOLDER) + entry("d", FOLDER) + file("f") + END + entry("g", FILE, link=b"d/f") + END
    receive(data, tmp_path / "new")
    assert (tmp_path / "new" / "g").samefile(tmp_path / "new" / "d" / "f")
    (tmp_path / "old" / "t" / "g").mkdir(parents=True)
    with pytest.raises(InvalidArgument, match="t/g: "):
        receive(data, tmp_path / "old")
    assert sorted(os.listdir(tmp_path / "old" / "t")) == ["d", "g"]


def test_no_set_id_bit_comes_from_a_guest(tmp_path):
    receive(entry("t", FOLDER | 0o7000) + file("f", mode=stat.S_IFREG | 0o7755) + END, tmp_path / "t")
    assert stat.S_IMODE((tmp_path / "t" / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(RECORD_MAX + 1) + bytes(100),
        LENGTH.pack(2**32 - 1),
        record(b"\xff" * 20),
        END,
        entry("t", FOLDER) + entry("f", FILE, mtime_nanos=2**32 - 1),
        b"".join(entry("d", FOLDER) for _ in range(300)),
    ],
)
def test_what_breaks_the_protocol_is_said_and_takes_no_memory(tmp_path, data):
    with pytest.raises(ProtocolError, match="guest"):
        receive(data, tmp_path)


def test_a_time_beyond_all_time_is_no_crash(tmp_path):
    for mtime in (2**63 - 1, -(2**63), 2**40):
        with contextlib.suppress(SandboxError):  # a file system may refuse it
            receive(entry("f", FILE, mtime=mtime) + END, tmp_path, b"f")
        assert set(os.listdir(tmp_path)) <= {"f"}


def test_depth_has_a_limit_that_is_said(tmp_path):
    deepest = tmp_path / "top"
    deepest.mkdir()
    for _ in range(300):
        deepest = deepest / "d"
        deepest.mkdir()
    with pytest.raises(ResourceExhausted, match="256"):
        send(tmp_path / "top")


def test_a_tree_larger_than_any_buffer_needs_little_memory(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "large", "wb") as large:
        large.truncate(200_000_000)
    ours, theirs = socket.socketpair()
    tracemalloc.start()
    with ours, theirs, theirs.makefile("rb") as records, ours.makefile("wb") as out:
        sender = threading.Thread(target=TreeSender(out, Tally()).send, args=(source,))
        sender.start()
        tally = Tally()
        TreeReceiver(records, tally).receive(tmp_path / "copy", b"source")
        sender.join()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert tally.size == (tmp_path / "copy" / "large").stat().st_size == 200_000_000
