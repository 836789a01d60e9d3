"""Errors: one hierarchy, builtin cousins, and messages that read as written."""

from __future__ import annotations

import subprocess

import pytest

from sandbox_nb import errors
from sandbox_nb.errors import ProcessFailed, ProcessTimedOut, RemoteError, SandboxError, from_status

COUSINS = {
    "InvalidArgument": ValueError,
    "NotFound": LookupError,
    "DeadlineExceeded": TimeoutError,
    "Unavailable": ConnectionError,
}


OTHERS = ("Explained", "from_status", "from_os_error", "RemoteError")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in OTHERS])
def test_every_class_is_a_sandbox_error_and_its_cousin(name):
    cls = getattr(errors, name)
    assert issubclass(cls, SandboxError)
    assert issubclass(cls, COUSINS.get(name, Exception))


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (3, errors.InvalidArgument),
        (4, errors.DeadlineExceeded),
        (5, errors.NotFound),
        (6, errors.AlreadyExists),
        (8, errors.ResourceExhausted),
        (9, errors.FailedPrecondition),
        (12, errors.Unimplemented),
        (14, errors.Unavailable),
    ],
)
def test_a_status_becomes_its_class_with_its_message(code, cls):
    error = from_status(code, "what was wrong")
    assert type(error) is cls
    assert str(error) == "what was wrong"


def test_any_other_status_is_kept_whole():
    error = from_status(13, "internal", ("detail",))
    assert isinstance(error, RemoteError)
    assert (str(error), error.code, error.details) == ("internal", 13, ("detail",))


def test_a_failed_command_is_a_called_process_error():
    error = ProcessFailed(3, "false", "out", "err")
    assert isinstance(error, subprocess.CalledProcessError)
    assert (error.returncode, error.stdout, error.stderr) == (3, "out", "err")
    assert "3" in str(error)


def test_a_timed_out_command_carries_its_output():
    error = ProcessTimedOut("sleep 9", 1.5, b"out", b"err")
    assert isinstance(error, TimeoutError)
    assert isinstance(error, subprocess.TimeoutExpired)
    assert (error.cmd, error.timeout, error.stdout, error.stderr) == ("sleep 9", 1.5, b"out", b"err")
    assert "1.5" in str(error)
