"""The notebooks: committed clean, and each shows what it says when a real kernel runs it from top to bottom."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What the cells put out, in this order; `how` of a start and figures depend on the machine.
EXPECTED = {
    "quickstart": [
        r"^sandbox: started \w+ in .* on (kvm|tcg)",
        r"^Linux sandbox 6\.",
        r"^line 3",
        r"^\(3, 'to standard output\\n', 'to standard error\\n'\)",
        r"^14 /root/poem.txt\nroses are red\nsecond\n1",
        r"^sandbox: stopped",
    ],
    "how_a_machine_boots": [
        r"^cold start in .* on (kvm|tcg)",
        r"^console=tty\w+ .* -- -vsock-rpc-port=1025",
        r"^ +1 /init",
        r"Run /init as init process",
        r"^warm start in",
        r"^cold: [\d.]+ s, warm: [\d.]+ s\n\d+ times as fast",
        r"^warm\n[0-9a-f]{12}\n[0-9a-f]{8}-",
        r"^twin\n[0-9a-f]{12}\n[0-9a-f]{8}-",
    ],
    "vsock_and_ttrpc": [
        r"/dev/vsock",
        r"^0x0013",
        r"^this machine's context id is 3",
        r"^port 5001 of the host: .*reset",
        r"^44 0200000000000000 0300000000000000 ",
        r"^woolves over vsock",
        r'^kernel_version: "6\.',
        r"^Hello, you\n→ stream 1 request  flags 0x0 .*Hello.*\n← stream 1 response flags 0x0 .*Hello, you",
        r"^INVALID_ARGUMENT - whom shall I greet\?\n→ stream 3",
        r"^0\n1\n2\n→ stream 5 request  flags 0x1(\n← stream 5 data .*){4}|flags 0x5",
    ],
    "disks_and_filesystems": [
        r"^data +disk +qcow2 .*/dev/vda /data",
        r"virtio-data -> ../../vda",
        r"^[\d.]+ MB -> 2\d\.\d MB",
        r"^what stays\n+touch: /mnt/new: Read-only file system",
        r"^FailedPrecondition disk 'data'.*in use",
        r"^written by the host\n.* on /shared type (9p|virtiofs)",
        r"^disks$",
        r"rm: can't remove '/mnt/inputs/from-host.txt': Read-only file system",
        r"^inputs +share +(9p|virtiofs) ",
        r"^answer = 42\n+total 8\n.*from-guest.txt\n.*from-host.txt",
    ],
    "networking": [
        r"^1: lo .*127\.0\.0\.1/8",
        r"^<h1>hello from the guest</h1>",
        r"^out +nic +user .*10\.0\.2\.15/24",
        r"^default via 10\.0\.2\.2 dev out",
        r"^hello from the host",
        r"unreachable",
        r"^64 bytes from 10\.0\.0\.1: seq=1 .*(\n.*){2}\n2 packets transmitted, 2 packets received",
        r" > ff:ff:ff:ff:ff:ff  ARP   who has 10\.0\.0\.1\?\n.* ARP   10\.0\.0\.1 is at 02:00:00:00:00:01",
        r"ICMP  echo request 1\n.*ICMP  echo reply 1",
        r"^\d+ bytes$",
        r"^\d+: passt +inet |^no passt here",
    ],
    "terminals": [
        r"^sandbox: started",
        r"# stty size\n8 60\n.*\n42$",
        r"'not a tty\\n",
        r"b'/dev/pts/\d+\\r\\n24 80\\r\\n'",
        r"'\\x1b\[31mred",
        r" colour 1 .* colour 6",
        r"'status 130'",
        r"^exited with status 0\n\{\"version\": 2",
        r"\"o\", \"lift-off",
        r"^somebody wrote this to the console",
        r"^sandbox: stopped",
    ],
    "running_untrusted_code": [
        r"^lo$",
        r"Network is unreachable|Network unreachable",
        r"^bin\ndev\n",
        r"timed out after 1 seconds\nso far: .*working on it.*\n0$",
        r"^-9\n.*Out of memory: Killed process",
        r"^ended\nstill here",
        r"^user\n touch: /etc/mine: Permission denied",
        r"^ada: True\nbob: False\neve: True\nkim: ProcessTimedOut\nlee: ProcessTimedOut",
    ],
    "many_machines": [
        r"^vsock   6ea1b5d66d39\n.*(\n.*){4}\n6 machines, ",
        r"^0 1\n0 Linux\n1 cat: can't open",
        r"^4 different of 4",
        r"^ProcessFailed .*\nstr 100\nUnavailable the machine is gone.*\nstr 33",
        r"^standby: [\d.]+ s\nwarm: [\d.]+ s",
        r"^\['6ea1b5d66d39', ",
    ],
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def test_it_is_committed_clean_and_ends_with_exercises(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert [cell["id"] for cell in cells] == [f"cell-{number:02}" for number in range(len(cells))]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert cells[0]["source"][0].startswith("# ")
    assert cells[-1]["source"][0] == "## Exercises\n"


@pytest.mark.vm
def test_it_runs_from_top_to_bottom_and_shows_what_it_says(notebook):
    command = [sys.executable, ROOT / "scripts/demo.py", notebook]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    shown = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("│ "))
    at = 0
    for pattern in EXPECTED[notebook.stem]:
        found = re.compile(pattern, re.MULTILINE).search(shown, at)
        assert found is not None, f"{pattern} is not in what follows:\n{shown[at:]}"
        at = found.end()


def test_a_line_that_comes_in_pieces_is_shown_as_one(tmp_path):
    source = "print('in two', end=' ', flush=True)\nprint('pieces', flush=True)\nprint('and more')"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "pieces.ipynb")
    command = [sys.executable, ROOT / "scripts/demo.py", tmp_path / "pieces.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nin two pieces\nand more\n\n")


def test_a_cell_that_fails_is_the_last_that_is_shown_and_its_error_what_is_said(tmp_path):
    cells = [nbformat.v4.new_code_cell(text) for text in ("1 + 1", "1 / 0", "3 + 3")]
    made = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(made, tmp_path / "broken.ipynb")
    command = [sys.executable, ROOT / "scripts/demo.py", tmp_path / "broken.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "│ 1 + 1\n2\n\n│ 1 / 0\n\n\n"
    assert "ZeroDivisionError" in done.stderr
