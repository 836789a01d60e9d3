"""``%sandbox trace`` in a real kernel."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.vm


def test_on_show_save_off(kernel, tmp_path):
    assert "%sandbox trace on" in kernel.run("%sandbox trace show").error
    kernel.run("%sandbox start")
    begun = kernel.run("%sandbox trace on")
    assert (begun.error, begun.stdout.count("\n")) == ("", 1)
    kernel.run("%%sandbox run\necho crossed")
    shown = kernel.run("%sandbox trace show --layer ttrpc --match crossed")
    (bundle,) = shown.displays
    assert "Process.Start request" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
    assert "vsock" not in bundle["text/plain"]
    assert "kept" in kernel.run("%sandbox trace off").stdout
    kernel.run("%%sandbox run\necho beyond")
    kernel.run("%sandbox stop")
    assert kernel.run(f"%sandbox trace save {tmp_path}/x.jsonl").error == ""
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert any("crossed" in line["detail"] for line in lines)
    assert not any("beyond" in line["detail"] for line in lines)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("trace maybe", "on, off, show, save"),
        ("trace save", "FILE"),
        ("trace on file", "trace save FILE"),
        ("trace save /no/such/folder/x.jsonl", "cannot be written"),
        ("trace save x.txt", "pcapng"),
        ("trace show --layer ip", "ttrpc, vsock, qmp"),
        ("trace show --last many", "a whole number"),
    ],
)
def test_bad_input_is_one_line(running, line, word):
    running.run("%sandbox trace on")
    error = running.run(f"%sandbox {line}").error
    assert word in error
    assert error.count("\n") == 0
