"""The terminal's measurements in a real browser, with few rounds and short output."""

from __future__ import annotations

import pytest
from lab import skipping

from sandbox_nb.bench import Skipped, terminal, terminal_page


@pytest.mark.browser
@pytest.mark.vm
@pytest.mark.timeout(300)
def test_all_terminals_take_turns(shrink):
    shrink(terminal, SEQ="seq 1 300", SEQ_ROUNDS=1, GUEST_ROUNDS=1)
    shrink(terminal, YES="yes | head -c 2000", YES_ROUNDS=1, KEYS=2, KEY_ROUNDS=1)
    with skipping():
        rows = terminal.rows()
    expected = {name for name in terminal.NAMES if "colab" not in name}  # which is not everywhere
    assert expected <= set(rows) <= set(terminal.NAMES)
    assert all(row.median > 0 for row in rows.values())
    assert rows["term_seq_ratio"].n == 1


def test_without_a_browser_they_are_skipped(monkeypatch, tmp_path):
    pytest.importorskip("playwright")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="it needs a Chromium on the PATH"), terminal_page.browser():
        pass


def test_a_server_that_does_not_start_is_skipped_with_its_log_and_leaves_nothing():
    server = terminal_page.Server("jupyterlab", options=["--ServerApp.port=none"])
    with pytest.raises(Skipped, match="the Jupyter server did not start") as caught, server:
        pass
    assert "ServerApp.port" in str(caught.value)
    assert server._process.returncode is not None
    assert not server.root.exists()
