"""What a bug report should come with, in one file: the logs, the options, the boot, and what the doctor finds.

Nothing of it holds what was secret to sandbox_nb: environments, inputs, outputs and contents of files are never
logged, and the agent's arguments are left out. What the guest wrote on its console is in it, as is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from sandbox_nb import __version__, doctor
from sandbox_nb.boot import Boot
from sandbox_nb.errors import InvalidArgument, SandboxError, from_os_error
from sandbox_nb.life import Life
from sandbox_nb.options import Options
from sandbox_nb.vm.machine import Logs

LOG_LIMIT = 4 << 20
"""Bytes taken of the end of each log."""


@dataclass(frozen=True)
class Subject:
    """The sandbox that a report is about, as far as it is known. ``logs`` is the folder they are in."""

    name: str
    state: str
    options: Options
    failure: str = ""
    console: str = ""
    boot: Boot | None = None
    logs: Path | None = None

    @classmethod
    def of(cls, life: Life) -> Self:
        """What is known of a sandbox now."""
        running = life.running
        return cls(
            life.name,
            life.state.value,
            life.options,
            failure=str(life.failure or ""),
            console=life.console,
            boot=None if running is None else running.boot,
            logs=None if running is None else running.state_dir,
        )


def write(subject: Subject, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report and return where it is: ``path``, or a name of its own in the current folder. Blocks.

    Raises InvalidArgument when there is something at ``path``, FailedPrecondition or ResourceExhausted when it
    cannot be written.
    """
    name = f"sandbox-{subject.name}-{time.strftime('%Y%m%d-%H%M%S')}.zip"
    target = Path(name if path is None else path)
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidArgument(f"{target} is there already; a report replaces nothing") from None
    except OSError as error:
        raise from_os_error(error, f"the report {target} cannot be written") from error
    try:
        with os.fdopen(fd, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in _contents(subject).items():
                archive.writestr(entry, content)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise from_os_error(error, f"the report {target} cannot be written") from error
    return target


def _contents(subject: Subject) -> dict[str, bytes | str]:
    about = {
        "sandbox_nb": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "name": subject.name,
        "state": subject.state,
        "failure": subject.failure,
        "boot": None if subject.boot is None else asdict(subject.boot),
    }
    found: dict[str, bytes | str] = {
        "about.json": json.dumps(about, indent=2),
        "options.toml": _options(subject.options),
        "doctor.json": json.dumps([asdict(finding) for finding in doctor.examine()], indent=2),
        "console.txt": subject.console,
    }
    if subject.logs is not None:
        found |= {path.name: _end(path) for path in Logs.in_folder(subject.logs).all if path.is_file()}
    return found


def _options(options: Options) -> str:
    shown = dataclasses.replace(options, init_args=())
    left_out = f"# init_args: {len(options.init_args)} left out\n" if options.init_args else ""
    try:
        return left_out + shown.to_toml()
    except SandboxError as error:  # a path that TOML cannot say
        return f"{left_out}# {error}\n"


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_LIMIT))
        return file.read()
