"""Lines of magics as words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from strategies import TEXT, options, plain

from sandbox_nb import InvalidArgument, grammar
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.notebook.magics import words

VARIABLES = {"n": 3, "text": "a b 'c'", "folder": "/tmp", "request": {"id": "x"}, "odd": {1}}


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
        ("call A.B {request}", ["call", "A.B", '{"id": "x"}']),
        ("call A.B", ["call", "A.B"]),
    ],
)
def test_json_at_the_end_stays_as_it_is(line, said):
    assert words.split_json(line, VARIABLES) == said


def test_what_cannot_be_split_or_sent_is_named():
    with pytest.raises(UsageError, match="quotes come in pairs"):
        words.split("run 'a", VARIABLES)
    with pytest.raises(InvalidArgument, match=r"\{odd\}"):
        words.split_json("call A.B {odd}", VARIABLES)


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
