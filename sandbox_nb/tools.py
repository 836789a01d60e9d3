"""Commands that look after what machines are made of, for ``sandbox-nb`` and ``%sandbox`` alike.

``doctor``, ``image`` and ``template``. They print, and return an exit status. ``arguments.progress`` makes what
shows how far a long one is.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

from sandbox_nb import grammar
from sandbox_nb.errors import FailedPrecondition, NotFound


class ShownProgress(Protocol):
    """Shows progress somewhere, and what came of it in the same place."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show ``stage`` and the share done."""

    def finish(self, text: str) -> None:
        """Leave ``text`` in its place."""


def add_commands(commands: Any, progress: Callable[[], ShownProgress]) -> None:
    """Add the sub-commands."""
    for name, (summary, add) in COMMANDS.items():
        parser = commands.add_parser(name, help=summary, description=summary)
        # Kept by whichever sub-command of it is meant.
        parser.set_defaults(progress=progress)
        add(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--fix", action="store_true", help="remove what processes that were killed have left")
    parser.set_defaults(act=_doctor)


def _add_image_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build an image")
    build.add_argument("image", nargs="?", default="base", metavar="NAME", help="base or python")
    build.add_argument("--arch", default=platform.machine(), metavar="ARCH", help="x86_64 or aarch64")
    for flag, what in (("kernel", "FILE"), ("modules", "DIR"), ("busybox", "FILE"), ("rootfs", "PATH")):
        build.add_argument(f"--{flag}", metavar=what, help=f"{flag} to use instead of the packages'")
    build.set_defaults(act=_image_build)
    show = commands.add_parser("list", help="list the images built")
    show.set_defaults(act=_image_list)
    remove = commands.add_parser("rm", help="remove an image")
    remove.add_argument("image", metavar="NAME")
    remove.set_defaults(act=_image_remove)


def _add_template_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="save a machine with these options, when there is none yet")
    grammar.add_machine_options(build)
    build.set_defaults(act=_template_build)
    show = commands.add_parser("list", help="list the saved machines, most recently used first")
    show.set_defaults(act=_template_list)
    remove = commands.add_parser("rm", help="remove saved machines; running ones go on")
    remove.add_argument("keys", nargs="+", metavar="KEY", help="the first letters of a key, or all")
    remove.set_defaults(act=_template_remove)


def _doctor(arguments: argparse.Namespace) -> int:
    from sandbox_nb import doctor

    findings = doctor.examine(fix=arguments.fix)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:4}  {finding.subject}: {finding.detail}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    return int(any(finding.status == "bad" for finding in findings))


def _image_build(arguments: argparse.Namespace) -> int:
    from sandbox_nb import binaries
    from sandbox_nb.guest import image

    parts = {name: getattr(arguments, name) for name in ("kernel", "modules", "busybox", "rootfs")}
    arch, progress = arguments.arch, arguments.progress()
    built = image.build(arguments.image, arch=arch, agent=binaries.agent(arch), progress=progress, **parts)
    progress.finish(str(built.folder))
    return 0


def _image_list(arguments: argparse.Namespace) -> int:
    from sandbox_nb.guest import image

    for found in image.list_images():
        print(f"{found.name:10} {found.arch:8} {found.release:24} {found.digest[:12]} {found.folder}")
    return 0


def _image_remove(arguments: argparse.Namespace) -> int:
    from sandbox_nb.guest import image

    for folder in image.remove(arguments.image):
        print(folder)
    return 0


def _template_build(arguments: argparse.Namespace) -> int:
    from sandbox_nb.blocking import Sandbox

    options = grammar.machine_options(arguments)
    if not options.wants_warm:
        raise grammar.UsageError("template build --warm off: that is a start that makes no template")
    progress = arguments.progress()
    with Sandbox() as sandbox:
        sandbox.start(options, progress=progress)
        boot = sandbox.boot
    if not boot.template:
        raise FailedPrecondition(boot.note or "another process is making this template right now")
    progress.finish(boot.template)
    return 0


def _template_list(arguments: argparse.Namespace) -> int:
    from sandbox_nb import host
    from sandbox_nb.vm import template

    for found in template.list_templates(host.templates_dir()):
        # The cache is also that of other versions, whose records may say other things.
        machine = " ".join(f"{name}={value}" for name, value in found.about.get("machine", {}).items())
        used = datetime.fromtimestamp(found.used).isoformat(" ", "minutes")
        print(f"{found.folder.name} {found.disk_usage() >> 20:5} MiB, used {used}  {machine}")
    return 0


def _template_remove(arguments: argparse.Namespace) -> int:
    from sandbox_nb import host
    from sandbox_nb.vm import template

    found = template.list_templates(host.templates_dir())
    for key in arguments.keys:
        if key != "all" and not any(one.folder.name.startswith(key) for one in found):
            raise NotFound(f"no template's key starts with {key}; see: sandbox-nb template list")
    for one in found:
        if any(key == "all" or one.folder.name.startswith(key) for key in arguments.keys):
            template.remove(one)
            print(one.folder.name)
    return 0


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "template": ("saved machines: make, list, remove", _add_template_commands),
    "image": ("guest images: build, list, remove", _add_image_commands),
    "doctor": ("say what is there, what is missing, and how to get it", _add_doctor),
}
"""Each with its help and what adds its arguments."""
