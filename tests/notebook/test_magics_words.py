"""Lines of magics as words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from strategies import TEXT, options, plain

from sandbox_nb import grammar
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.notebook.magics import commands, plugging, words
from sandbox_nb.notebook.magics.verbs import add_debug, parser_of

FLAGS = {"flag": "--quiet", "debug": "--debug"}
VARIABLES = {"n": 3, "text": "a b 'c'", "folder": "/tmp", "request": {"id": "x"}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run -- echo {n}", ["run", "--", "echo", "3"]),
        ("run {text}", ["run", "a b 'c'"]),
        ("run x={n},{folder}/y", ["run", "x=3,/tmp/y"]),
        ("run {{n}} {nothing} '{print $1}' {}", ["run", "{n}", "{nothing}", "{print $1}", "{}"]),
        ("run 'a  b' \"c\"", ["run", "a  b", "c"]),
        ("", []),
    ],
)
def test_words_and_values(line, said):
    assert words.split(line, VARIABLES) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('call A.B {"id": "x y"}', ["call", "A.B", '{"id": "x y"}']),
        ("call --timeout {n} A.B [{}, {}]", ["call", "--timeout", "3", "A.B", "[{}, {}]"]),
        ('call A.B { "id": {"x": [1]}}', ["call", "A.B", '{ "id": {"x": [1]}}']),
        ("call A.B {}", ["call", "A.B", "{}"]),
        ('call A.B --name {text} {"id": 1}', ["call", "A.B", "--name", "a b 'c'", '{"id": 1}']),
        ("call A.B", ["call", "A.B"]),
    ],
)
def test_json_at_the_end_stays_as_it_is(line, said):
    assert words.split_json(line, VARIABLES) == said


def test_a_word_that_is_one_value_has_the_value_itself():
    *_, name, request = words.split_json("call A.B --name {text} {request}", VARIABLES)
    assert (name, name.value) == ("a b 'c'", "a b 'c'")
    assert request.value == {"id": "x"}
    assert not any(isinstance(word, words.Value) for word in words.split("{n}x x{n} {{n}} {nothing}", VARIABLES))


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("run {flag} ls", "command", ["--quiet", "ls"]),
        ("run ls {flag} {debug}", "command", ["ls", "--quiet", "--debug"]),
        ("run --cwd {flag} ls", "cwd", "--quiet"),
        ("run --quiet ls", "command", ["ls"]),
        ("cp {flag} b", "source", "--quiet"),
        ("cp {flag}=1 b", "source", "--quiet=1"),
    ],
)
def test_a_value_is_never_an_option(line, name, said):
    parser, _ = parser_of([*commands.VERBS, *plugging.VERBS])
    add_debug(parser)
    found = parser.parse_args(words.split(line, FLAGS))
    assert getattr(found, name) == said
    assert not found.debug


@pytest.mark.parametrize(
    ("line", "command", "debug"),
    [
        ("run --debug echo a", ["echo", "a"], True),
        ("run echo a --debug b", ["echo", "a", "--debug", "b"], False),
        ("run -- echo --debug", ["--", "echo", "--debug"], False),
    ],
)
def test_debug_behind_a_command_is_the_commands(line, command, debug):
    parser, _ = parser_of(commands.VERBS)
    add_debug(parser)
    found = parser.parse_args(words.split(line, {}))
    assert (found.command, found.debug) == (command, debug)


def test_what_cannot_be_split_is_named():
    with pytest.raises(UsageError, match="quotes come in pairs"):
        words.split("run 'a", VARIABLES)


@settings(deadline=None)
@given(options(arguments=TEXT))
def test_a_magic_line_says_the_same_machine(machine):
    said = grammar.machine_words(machine)
    if any(len(f".{word}.".splitlines()) > 1 for word in said):
        return
    parser = Parser(prog="test")
    grammar.add_machine_options(parser)
    line = words.escaped(said)
    everything = dict.fromkeys([*"abcdefghijklmnopqrstuvwxyz", "n"], "taken")
    assert plain(grammar.machine_options(parser.parse_args(words.split(line, everything)))) == plain(machine)
