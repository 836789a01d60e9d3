"""The words of the command line and of the magics, written once.

Flags that describe a machine are made from the fields of ``Options``; ``sandbox-nb`` and ``%sandbox`` put them
into their sub-commands, so name, default and help text cannot drift apart.

An action may carry a ``complete``: what kind of word it takes, for who offers completions (``COMPLETE_…``).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sandbox_nb import config, notation
from sandbox_nb.config import Kind
from sandbox_nb.devices import NIC, Device, Disk, Filesystem, UserNIC
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.options import Options
from sandbox_nb.suggest import did_you_mean

_MEBIBYTES = {"memory", "host_memory"}
_INTEGERS = {"cpu", "standby", *_MEBIBYTES}
_NUMBERS = {"idle_timeout", "max_lifetime", "host_cpus"}
_PATHS = {"state_dir", "kernel", "modules", "busybox", "rootfs"}

DEVICES: dict[str, tuple[Kind, str, str]] = {
    "disk": (Disk, "disks", "a disk image of the host"),
    "share": (Filesystem, "filesystems", "a folder of the host"),
    "nic": (NIC, "nics", "a network card on a UNIX socket of the host"),
    "user-nic": (UserNIC, "nics", "a network card on QEMU's user-mode network"),
}
"""The flags that say a device: its kind, the option it belongs to, what it is."""

COMPLETE_HOST_PATH = "host path"


class UsageError(InvalidArgument):
    """What was typed is not in the grammar."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of leaving the process, and guesses what was meant."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        keywords.setdefault("allow_abbrev", False)
        super().__init__(*args, **keywords)
        # argparse would name the type, as in "invalid int value".
        self.register("type", int, _whole_number)
        self.register("type", float, _number)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, as one line."""
        raise UsageError(f"{self.prog}: {message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Say what was meant, or else what can be chosen; argparse lists without guessing."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            said = did_you_mean(str(value), known) or f"; there is {', '.join(known)}"
            raise argparse.ArgumentError(action, f"{value!r} is not known{said}")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and name the first argument that is none of ours, with the nearest that is."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]}{self._meant_by(unknown[0])}")
        return found, unknown

    def _meant_by(self, word: str) -> str:
        """What somebody may have meant by a word that is no argument: an option, or the name of a machine."""
        guess = did_you_mean(word, self._option_string_actions)
        if not guess and "--name" in self._option_string_actions and not word.startswith("-"):
            return f"; a sandbox is named by --name {word}"
        return guess


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number is needed") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a number is needed") from None


def _mebibytes(text: str) -> int:
    """The type of an amount of memory: a whole number of MiB."""
    try:
        return int(text)
    except ValueError:
        said = re.fullmatch(r"(\d+)([mgt])(?:i?b)?", text.lower())
        meant = f", which is {int(said[1]) << 10 * 'mgt'.index(said[2])}" if said else ""
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of MiB is needed{meant}") from None


def plain_type(name: str) -> type:
    """What an option that is one word is made of: int, float or str."""
    return int if name in _INTEGERS else float if name in _NUMBERS else str


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every option of a machine, and ``--config``, which takes them from a file."""
    group = parser.add_argument_group("machine")
    # What is not said stays away, so that it does not hide what a file or the notebook's settings say.
    add = functools.partial(group.add_argument, default=argparse.SUPPRESS)
    for option in dataclasses.fields(Options):
        if "help" in option.metadata:
            _add_plain(add, option)
    for flag, (kind, option_name, what) in DEVICES.items():
        keywords = _device_keywords(kind)
        add(
            f"--{flag}",
            dest=option_name,
            action="append",
            help=f"{what}, may be repeated: {_form(kind)}",
            **keywords,
        )
    add("--init-arg", dest="init_args", action="append", metavar="ARG", help="argument for the agent")
    file = add("--config", metavar="FILE", help="TOML file with options under the same names; flags come on top")
    file.complete = COMPLETE_HOST_PATH  # type: ignore[attr-defined]


def add_forwards(parser: argparse.ArgumentParser) -> None:
    """Add the flag that forwards ports once the machine runs."""
    parser.add_argument(
        "--forward",
        dest="forwards",
        action="append",
        default=[],
        type=forward_type,
        metavar="HOST:GUEST",
        help="make a port of the guest one of this host, with no network card; may be repeated",
    )


def forward_type(text: str) -> tuple[int, int | str]:
    """The type of an argument like ``8080:80``: a port of the host, and a port or the path of a socket there."""
    host, _, guest = text.partition(":")
    if not host.isdecimal() or not (guest.isdecimal() or guest.startswith("/")):
        raise argparse.ArgumentTypeError(f"{text!r}: HOST:GUEST is needed, as in 8080:80 or 8080:/run/app.sock")
    return int(host), int(guest) if guest.isdecimal() else guest


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say one device."""
    choice = parser.add_mutually_exclusive_group(required=True)
    for flag, (kind, _, what) in DEVICES.items():
        text = f"{what}: {_form(kind)}"
        choice.add_argument(f"--{flag}", dest="device", help=text, **_device_keywords(kind))


def machine_options(arguments: argparse.Namespace, base: Options | None = None) -> Options:
    """The options that a file and the flags said, on top of ``base``: devices and arguments are added to it.

    Raises InvalidArgument, and NotFound for a file that is not there.
    """
    options = base or Options()
    if hasattr(arguments, "config"):
        options = dataclasses.replace(options, **config.said(config.load(arguments.config)))
    said: dict[str, Any] = {}
    for option in dataclasses.fields(Options):
        if hasattr(arguments, option.name):
            value = getattr(arguments, option.name)
            said[option.name] = [*getattr(options, option.name), *value] if isinstance(value, list) else value
    return options.applying((), said)


def machine_words(options: Options) -> list[str]:
    """The flags that say ``options``, as ``machine_options`` reads them.

    Raises InvalidArgument for what no word can say.
    """
    words: list[str] = []
    for name, value in config.said(options).items():
        if name == "init_args":
            words += [word for argument in value for word in _said("init-arg", _text(argument))]
        elif isinstance(value, tuple):
            words += [word for device in value for word in _device_words(device)]
        else:
            words += _said(name.replace("_", "-"), _text(value))
    return words


def line(words: Sequence[str]) -> str:
    """Words as they are typed. Raises InvalidArgument for one that takes more than a line."""
    for word in words:
        if len(f"{word}.".splitlines()) > 1:
            raise InvalidArgument(f"{word!r} is more than a line; use TOML or Python")
    return shlex.join(words)


def add_command(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add the words of a command: all from the first that is no option of ours, its own options among them."""
    return parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD [ARG]...", help="the command")


def command_words(arguments: argparse.Namespace) -> list[str]:
    """The words of the command; one that begins like an option of ours has ``--`` before it."""
    words: list[str] = arguments.command
    return words[1:] if words[:1] == ["--"] else words


def add_command_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a command runs in the guest."""
    group = parser.add_argument_group("command")
    group.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable; may be repeated"
    )
    group.add_argument("--cwd", default="", metavar="DIR", help="folder of the guest to run in")
    group.add_argument(
        "--user", default="", metavar="USER", help="user of the guest to run as; root when not said"
    )
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the command when it takes longer")


def command_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords for ``Sandbox.run`` that the flags said. Raises UsageError for --env without a value."""
    env = {}
    for pair in arguments.env:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--env {pair}: NAME=VALUE is needed")
        env[name] = value
    return {"env": env, "cwd": arguments.cwd, "user": arguments.user, "timeout": arguments.timeout}


def _add_plain(add: Callable[..., argparse.Action], option: dataclasses.Field[Any]) -> None:
    """Add the flag of an option that is one word."""
    flags = [f"--{option.name.replace('_', '-')}"]
    if option.metadata["alias"]:
        flags.append(f"--{option.metadata['alias']}")
    keywords: dict[str, Any] = {"dest": option.name, "help": _help(option)}
    if option.metadata["choices"]:
        keywords["choices"] = option.metadata["choices"]
    else:
        keywords["metavar"] = option.metadata["metavar"]
        keywords["type"] = _mebibytes if option.name in _MEBIBYTES else plain_type(option.name)
    action = add(*flags, **keywords)
    if option.name in _PATHS:
        action.complete = COMPLETE_HOST_PATH  # type: ignore[attr-defined]


def _help(option: dataclasses.Field[Any]) -> str:
    default = "" if option.default is None else f" (default: {option.default})"
    return f"{option.metadata['help']}{default}".replace("%", "%%")


def _device_keywords(kind: Kind) -> dict[str, Any]:
    """What an argument that takes a device needs; one that has no first part may stand alone."""
    alone = {"nargs": "?", "const": kind()} if kind is UserNIC else {}
    return {"type": _device_type(kind), "metavar": notation.FORMS[kind].partition("[")[0] or "KEY=VALUE", **alone}


def _form(kind: Kind) -> str:
    """What to type, with places where a line may be broken."""
    return notation.FORMS[kind].replace("[,", " [,")


def _device_type(kind: Kind) -> Callable[[str], Device]:
    def parse(text: str) -> Device:
        try:
            return notation.parse(kind, text)
        except InvalidArgument as error:
            # argparse would hide the words of a plain ValueError.
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _device_words(device: Device) -> list[str]:
    flag = next(flag for flag, (kind, _, _) in DEVICES.items() if isinstance(device, kind))
    word = notation.render(device)
    return _said(flag, word) if word else [f"--{flag}"]


def _said(flag: str, text: str) -> list[str]:
    """A flag and its value; in one word where the value looks like a flag."""
    return [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]


def _text(value: Any) -> str:
    text = os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)
    if not config.is_utf8(text):
        raise InvalidArgument(f"{value!r} is no UTF-8, which a line is; use Python")
    return text
