"""Others' products, stood in for by programs of their names: what they are told, what is made of their answers."""

from __future__ import annotations

import types

import pytest

from sandbox_nb.bench import Skipped, libguestfs, peers, quicksand

QUICKSAND = """
class AlpineSandbox:
    def __init__(self, accel="auto"):
        assert accel is None, accel
    async def __aenter__(self):
        return self
    async def __aexit__(self, *_):
        pass
    async def execute(self, command):
        assert command == "true"
"""

GUESTFISH = """#!/bin/sh
[ "$LIBGUESTFS_BACKEND $LIBGUESTFS_BACKEND_SETTINGS" = "direct force_tcg" ] || exit 1
[ "$*" = "-a /dev/null run : debug sh true" ]
"""


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Rounds of ours take no machine, and a second; there is one."""
    monkeypatch.setattr(peers, "ROUNDS", 1)
    monkeypatch.setattr(peers, "live", lambda *, accel: types.SimpleNamespace(stopped=1.0, accel=accel))


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Puts a package quicksand of that source, and a guestfish, where they are looked for."""

    def install(source, script):
        (tmp_path / "quicksand.py").write_text(source)
        (tmp_path / "guestfish").write_text(script)
        (tmp_path / "guestfish").chmod(0o755)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return install


@pytest.mark.parametrize("peer", [quicksand, libguestfs])
def test_a_peer_is_told_to_emulate_and_its_rows_are_there(installed, peer):
    installed(QUICKSAND, GUESTFISH)
    rows = peer.rows()
    assert tuple(rows) == peer.NAMES
    theirs, ours, ratio = rows.values()
    assert ours.median == 1.0
    assert ratio.median == theirs.median > 0


@pytest.mark.parametrize("peer", [quicksand, libguestfs])
def test_a_peer_that_fails_here_is_skipped_with_its_own_words(installed, peer):
    installed("raise SystemExit('no space')", "#!/bin/sh\necho no space >&2; exit 1\n")
    with pytest.raises(Skipped, match="failed here: no space"):
        peer.rows()


@pytest.mark.parametrize(
    ("peer", "remedy"),
    [
        (quicksand, r"pip install 'quick-sandbox\[alpine\]'"),
        (libguestfs, "sudo apt-get install libguestfs-tools"),
    ],
)
def test_a_peer_that_is_not_installed_is_skipped_with_the_remedy(monkeypatch, tmp_path, peer, remedy):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Skipped, match=remedy):
        peer.rows()
