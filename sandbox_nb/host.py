"""What a start finds on the host before anything runs: QEMU, the accelerator, the image, folders."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import platformdirs

from sandbox_nb import binaries
from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import image
from sandbox_nb.guest.image import Image
from sandbox_nb.options import Options
from sandbox_nb.vm import accel, architecture
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.architecture import Architecture
from sandbox_nb.vm.machine import Logs

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much, in units of the stage's own."""


def check_progress(progress: object) -> None:
    """Raise InvalidArgument unless it can be told of progress, or is None."""
    if progress is not None and not callable(progress):
        raise InvalidArgument(f"progress={progress!r}: a function is needed, or None")


def cache_dir() -> Path:
    """The user's cache folder: images, templates, verdicts on the accelerator."""
    return Path(platformdirs.user_cache_dir("sandbox_nb"))


def templates_dir() -> Path:
    """Where templates are kept."""
    return cache_dir() / "templates"


def guest_architecture(options: Options) -> Architecture:
    """The guest's architecture. Raises InvalidArgument when it is the host's and there are no guests of it."""
    return architecture.named(platform.machine() if options.arch == "host" else options.arch)


def find_qemu(arch: Architecture) -> Path:
    """The QEMU for guests of this architecture. Raises NotFound with what to install."""
    path = shutil.which(arch.qemu)
    if path is None:
        raise NotFound(
            f"{arch.qemu} is not installed: sudo apt-get install {arch.package} (or see: sandbox-nb doctor)"
        )
    return Path(path)


async def choose_accelerator(options: Options) -> Accelerator:
    """Decide what the machine runs on. Raises FailedPrecondition when what was asked for does not work."""
    arch = guest_architecture(options)
    return await accel.choose(
        options.accel,
        arch,
        qemu=find_qemu(arch),
        probe=binaries.probe(),
        guard=binaries.guard(),
        cache=cache_dir(),
    )


async def ensure_image(options: Options, progress: Progress | None = None) -> Image:
    """Find or build the image; building is blocking work and runs in a thread, ended when we are cancelled."""
    cancelled = threading.Event()

    def report(stage: str, done: int, total: int) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        if progress is not None:
            progress(stage, done, total)

    arch = guest_architecture(options).name

    def ensure() -> Image:
        return image.ensure(
            options.image,
            arch=arch,
            agent=binaries.agent(arch),
            kernel=options.kernel,
            modules=options.modules,
            busybox=options.busybox,
            rootfs=options.rootfs,
            progress=report,
        )

    try:
        return await asyncio.to_thread(ensure)
    except asyncio.CancelledError:
        cancelled.set()
        raise


def prepare_state_dir(wanted: str | os.PathLike[str] | None, run_folder: Path) -> Path:
    """Make the folder for logs. Raises InvalidArgument when the caller's cannot be one."""
    if wanted is None:
        private = run_folder / "state"
        private.mkdir(mode=0o700)
        return private
    folder = Path(wanted)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs = Logs.in_folder(folder)
        for path in logs.all:
            path.touch(mode=0o600)  # nobody else's to read, whatever the folder is
    except OSError as error:
        raise InvalidArgument(
            f"state_dir={str(wanted)!r} cannot be used: {error.strerror}; give a folder that can be written to"
        ) from error
    return folder
