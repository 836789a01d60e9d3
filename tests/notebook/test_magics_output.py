"""Output of cells: within what a server takes, nothing lost, memory bounded, lines as in a terminal."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.vm

LINE = b"a line as long as others are, with the numbers 0123456789\n"


def lines(size: int) -> bytes:
    return (LINE * (size // len(LINE) + 1))[:size]


def follow(kernel, cell):
    """Run a cell; return its messages, and by how much the kernel's memory grew at most."""
    process = psutil.Process(kernel.value("__import__('os').getpid()"))
    before = peak = process.memory_info().rss
    message, found = kernel.client.execute(cell), []
    while True:
        one = kernel.client.get_iopub_msg(timeout=90)
        peak = max(peak, process.memory_info().rss)
        if one["parent_header"].get("msg_id") == message:
            found.append(one)
            if one["msg_type"] == "status" and one["content"]["execution_state"] == "idle":
                return found, peak - before


@pytest.mark.parametrize("size", [4_000_000, pytest.param(100_000_000, marks=pytest.mark.soak)])
def test_long_output_is_shown_head_and_tail_and_kept_whole(running, size):
    text = LINE.decode().rstrip()
    messages, grown = follow(running, f"%%sandbox run --out r\nyes '{text}' | head -c {size}")
    shown = "".join(one["content"]["text"] for one in messages if one["msg_type"] == "stream")
    notices = [one["content"]["data"]["text/plain"] for one in messages if "data" in one["content"]]
    assert shown.startswith(LINE.decode() * 1000)
    assert shown.endswith(lines(size)[-8000:].decode())
    assert len(shown) < 100_000
    file = Path(running.value("str(r.files['stdout'])"))
    assert re.fullmatch(rf"… [\d.]+ MB not shown; all of it is in {re.escape(str(file))}", notices[-1])
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(lines(size)).digest()
    assert grown < 32 << 20
    assert running.value("len(r.stdout)") == size


def test_what_run_echoes_in_a_cell_is_within_the_same_limits(running):
    running.run("sb = get_ipython().magics_manager.registry['SandboxMagics'].session.find(None)")
    said = running.run("done = sb.run('seq 1 200000; echo oh >&2', stream=True)")
    assert said.stdout.startswith("1\n2\n3\n")
    assert said.stdout.endswith("\n199999\n200000\n")
    assert len(said.stdout) < 100_000
    assert said.stderr == "oh\n"
    shown = re.fullmatch(r"… 1\.2 MB not shown; all of it is in (.+)", said.displays[-1]["text/plain"])
    assert Path(shown[1]).read_text() == running.value("done.stdout")


def test_output_that_just_fits_is_shown_whole(running):
    said = running.run("%%sandbox run --out r\nyes 0123456789 | head -c 81000")
    assert said.stdout == ("0123456789\n" * 8000)[:81_000]
    assert (said.displays, running.value("r.files")) == ([], {})


def test_quiet_and_background_output_is_kept_too(running):
    running.run("%%sandbox run --quiet --out r\nseq 1 50000 >&2")
    assert running.value("[r.stdout, len(r.stderr), list(r.files)]") == ["", 288_894, ["stderr"]]
    running.run("%%sandbox run --bg --out job\nseq 1 50000")
    assert running.value("[job.wait().stdout == ''.join(f'{n}\\n' for n in range(1, 50001))]") == [True]


def test_output_and_errors_are_apart_and_in_order(running):
    loop = "for n in 1 2 3; do echo o$n; sleep 0.1; echo e$n >&2; sleep 0.1; done"
    messages, _ = follow(running, f"%%sandbox run\n{loop}")
    said = [(one["content"]["name"], one["content"]["text"]) for one in messages if one["msg_type"] == "stream"]
    assert said == [
        (name, f"{letter}{n}\n") for n in (1, 2, 3) for name, letter in (("stdout", "o"), ("stderr", "e"))
    ]


def test_colours_and_characters_come_through_whole(running):
    said = running.run("%%sandbox run\nprintf '\\033[31mred\\033[0m \\303'; sleep 0.2; printf '\\274\\n'")
    assert said.stdout == "\x1b[31mred\x1b[0m ü\n"


def test_a_progress_bar_is_few_messages_and_ends_as_it_does_in_a_terminal(running):
    bar = "i=0; while [ $i -le 2000 ]; do printf '\\r%d of 2000\\033[K' $i; i=$((i+1)); done"
    messages, _ = follow(running, f"%%sandbox run\n{bar}; printf '\\r\\033[Kdone\\n'")
    pieces = [one["content"]["text"] for one in messages if one["msg_type"] == "stream"]
    assert len(pieces) < 100
    assert "".join(pieces).rpartition("\r")[2].rstrip() == "done"


def test_many_small_pieces_are_few_messages(running):
    """Two thousand lines, one write each: a server drops what comes faster than 1000 messages a second."""
    messages, _ = follow(running, "%%sandbox run\ni=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done")
    pieces = [one["content"]["text"] for one in messages if one["msg_type"] == "stream"]
    assert "".join(pieces) == "".join(f"{n}\n" for n in range(2000))
    assert len(pieces) < 500


def test_files_of_output_go_with_the_extension(kernel):
    kernel.run("%sandbox start")
    kernel.run("%%sandbox run --quiet --out r\nseq 1 50000")
    file = Path(kernel.value("str(r.files['stdout'])"))
    assert file.exists()
    kernel.run("%unload_ext sandbox_nb")
    assert not file.parent.exists()
