"""The words of a machine: flags that say it, and what is wrong with some."""

from __future__ import annotations

import dataclasses
import shlex

import pytest
from hypothesis import given, settings
from strategies import TEXT, options, plain

from sandbox_nb import NIC, Disk, DiskFlags, Filesystem, InvalidArgument, Options, UserNIC, grammar, notation
from sandbox_nb.grammar import Parser, UsageError


def parsed(words, base=None):
    parser = Parser(prog="test")
    grammar.add_machine_options(parser)
    return grammar.machine_options(parser.parse_args(words), base)


@settings(deadline=None)
@given(options(arguments=TEXT))
def test_flags_say_the_same_machine(machine):
    assert plain(parsed(grammar.machine_words(machine))) == plain(machine)


@settings(deadline=None)
@given(options(arguments=TEXT))
def test_a_line_says_the_same_machine_or_that_it_cannot(machine):
    words = grammar.machine_words(machine)
    if any(len(f".{word}.".splitlines()) > 1 for word in words):
        with pytest.raises(InvalidArgument, match="more than a line"):
            grammar.line(words)
    else:
        assert plain(parsed(shlex.split(grammar.line(words)))) == plain(machine)


def test_every_option_has_a_flag():
    parser = Parser(prog="test")
    grammar.add_machine_options(parser)
    said = {action.dest for action in parser._actions}
    assert {option.name for option in dataclasses.fields(Options)} <= said


@pytest.mark.parametrize(
    ("words", "device"),
    [
        ("--disk data=a.img", Disk("data", "a.img")),
        (
            "--disk data=/x,,y,ro,vmdk,target=/data",
            Disk("data", "/x,y", DiskFlags.READONLY | DiskFlags.VMDK, target="/data"),
        ),
        ("--disk a=b,format=ext4,size=2G", Disk("a", "b", format="ext4", size="2G")),
        ("--disk a=b,backing=c,backing=d", Disk("a", "b", backing=("c", "d"))),
        ("--share src=.,ro,target=/src", Filesystem("src", ".", True, target="/src")),
        ("--nic /run/n.sock,mode=stream,features=0x20", NIC("/run/n.sock", mode=1, features=32)),
        ("--user-nic", UserNIC()),
        ("--user-nic forward=8080:80,forward=2222:22,restrict", UserNIC({8080: 80, 2222: 22}, True)),
    ],
)  # fmt: skip
def test_a_device_in_a_word(words, device):
    (found,) = parsed(words.split()).devices
    assert found == dataclasses.replace(device, **({"name": found.name} if hasattr(device, "mac") else {}))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--disk data", "ID=PATH"),
        ("--disk =a.img", "ID=PATH"),
        ("--disk data=", "ID=PATH"),
        ("--disk data=a,traget=/x", "did you mean target"),
        ("--disk data=a,target", "KEY=VALUE"),
        ("--disk data=a,ro=1", "takes no value"),
        ("--disk data=a,size=2X", "2X"),
        ("--disk data=a,target=x", "target='x'"),
        ("--share src", "TAG=PATH"),
        ("--nic ,mode=stream", "ENDPOINT"),
        ("--nic /a,mode=tcp", "gram or stream"),
        ("--nic /a,features=x", "features='x'"),
        ("--user-nic forward=80", "forward"),
        ("--user-nic forward=x:80", "'x'"),
        ("--cpu 2", "cpu=2 without memory: give both, as in cpu=2, memory=256 or --cpu 2 --memory 256"),
        ("--memory 512", "--cpu 1 --memory 512"),
        ("--memory many", "'many': a whole number of MiB is needed"),
        ("--memory 2g", "'2g': a whole number of MiB is needed, which is 2048"),
        ("--host-memory 600MiB", "which is 600"),
        ("--standby many", "'many': a whole number is needed"),
        ("--idle-timeout soon", "'soon': a number is needed"),
        ("--accel kvmm", "did you mean kvm"),
        ("--imgae base", "did you mean --image"),
        ("--state /x", "did you mean --state-dir"),
        ("--init-arg", "--init-arg"),
    ],
)
def test_what_is_wrong_is_named(words, says):
    with pytest.raises(InvalidArgument) as caught:
        parsed(words.split())
    assert says in str(caught.value)


def test_a_name_that_no_word_can_say():
    with pytest.raises(InvalidArgument, match="a=b"):
        notation.render(Disk("a=b", "/x"))
    with pytest.raises(InvalidArgument, match="UTF-8"):
        grammar.machine_words(Options(init_args=(b"\xff",)))


def test_flags_come_on_top_of_a_file_and_that_on_top_of_the_rest(tmp_path):
    file = tmp_path / "machine.toml"
    file.write_text("cpu = 2\nmemory = 300\n[[disks]]\nblock_id = 'a'\nmount_path = 'a.img'\n")
    base = Options(cpu=1, memory=256, accel="tcg")
    found = parsed(["--config", str(file), "--memory", "400", "--disk", "b=b.img"], base)
    assert (found.cpu, found.memory, found.accel) == (2, 400, "tcg")
    assert [disk.block_id for disk in found.disks] == ["a", "b"]
    file.write_text("cpus = 1")
    with pytest.raises(InvalidArgument, match=str(file)):
        parsed(["--config", str(file)])


def test_usage_errors_are_invalid_arguments():
    with pytest.raises(UsageError):
        parsed(["--nothing"])
