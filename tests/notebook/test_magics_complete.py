"""Completion, as the kernel answers it to every page."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def prepared(running, tmp_path_factory):
    """The module's kernel, working in a folder with something in it, with some variables."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "machine.toml").write_text("")
    (folder / "many files").mkdir()
    running.run(f"import os; os.chdir({str(folder)!r})")
    running.run("from sandbox_nb import Sandbox; held, text = Sandbox('held'), 'text'")
    return running


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%sandbox sta", ["start", "status"]),
        ("%%sandbox wr", ["write"]),
        ("x = 1\n%sandbox sta", ["start", "status"]),
        ("%sandbox template ", ["build", "list", "rm"]),
        ("%sandbox template build --mem", ["--memory"]),
        ("%sandbox start --me", ["--memory"]),
        ("%sandbox start --accel ", ["auto", "kvm", "tcg"]),
        ("%sandbox start --accel=k", ["--accel=kvm"]),
        ("%sandbox start --config m", ["machine.toml", "many files/"]),
        ("%sandbox stop --name ", ["held", "sandbox"]),
        ("%sandbox use h", ["held"]),
        ("%%sandbox run --stdin te", ["text"]),
        ("%%sandbox run --quiet --o", ["--out"]),
        ("%sandbox run -- /etc/passw", ["/etc/passwd"]),
        ("%sandbox run -- cat /etc/passw", ["/etc/passwd"]),
        ("%%sandbox write /ro", ["/root/"]),
        ("%sandbox cp :/etc/passw", [":/etc/passwd"]),
        ("%sandbox cp mach", ["machine.toml"]),
        ("%sandbox cp machine.toml sa", ["sandbox:"]),
        ("%sandbox call System.", ["System.Info"]),
        ("%sandbox help rest", ["restart"]),
        ("%sandbox run ls -l /etc/passw", ["/etc/passwd"]),
        ("%sandbox run --quiet ls --quie", ["--quie"]),
        ("%sandbox start --memory ", []),
        ("%sandbox nonsense", ["nonsense"]),
        ("%sandbox run -- /no/such/pl", ["/no/such/pl"]),
        ("tex", ["text"]),
    ],
)
def test_a_line_is_completed(prepared, line, found):
    matches = prepared.complete(line)
    assert matches == found if found else not set(matches) & {"auto", "--memory", "start"}


def test_the_machine_that_is_named_is_asked(prepared):
    for said in ("--name held", "--name=held"):
        line = f"%%sandbox write {said} /ro"
        assert prepared.complete(line) == ["/ro"]
    for said in ("--name sandbox", "--name=sandbox"):
        assert prepared.complete(f"%%sandbox write {said} /ro") == ["/root/"]


def test_a_guest_that_hangs_is_not_waited_for(prepared):
    prepared.run("from sandbox_nb.notebook.magics import completion; completion.GUEST_TIMEOUT = 0")
    assert prepared.complete("%%sandbox write /ro") == ["/ro"]
    prepared.run("completion.GUEST_TIMEOUT = 1")
