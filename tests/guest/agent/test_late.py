"""Outputs whose streams the host opens only when there is much to hear."""

from __future__ import annotations

import asyncio
import secrets
import signal

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError

pytestmark = pytest.mark.parametrize("native_agent", ["sanitized", "shipped"], indirect=True)

FOREVER = "sleep 600"

OUT, ERR = 1, 2


def said(answer):
    """What an answer holds, pieces of one output joined."""
    joined = []
    for piece in answer.said:
        if joined and joined[-1][0] == piece.output:
            joined[-1] = (piece.output, joined[-1][1] + piece.data)
        else:
            joined.append((piece.output, piece.data))
    return joined


class Late:
    """A process with late outputs: its id, and the ids of their streams."""

    def __init__(self, agent, tools, identity, out, err):
        self.agent, self.tools = agent, tools
        self.id, self.out, self.err = identity, out, err

    async def wait(self, *, or_output=True, timeout=None):
        request = pb.WaitRequest(id=self.id, or_output=or_output)
        return await self.agent.processes.wait(request, timeout=timeout)

    async def open(self, name):
        """Open a stream; what it brings until its end."""
        sock, _ = await self.agent.greet(name.encode())
        return asyncio.ensure_future(self.tools.read_all(sock))


@pytest.fixture
def begin(agent, tools):
    async def begin(*args, **fields):
        out, err = (f"{secrets.token_hex(6)}-{number}" for number in (1, 2))
        fields = {"stdout": f"late://{out}", "stderr": f"late://{err}"} | fields
        return Late(agent, tools, await agent.start(*args, **fields), out, err)

    return begin


async def test_what_a_quick_command_said_comes_with_its_end(agent, begin):
    await (await begin("true")).wait()
    before = agent.descriptors()
    end = await (await begin("sh", "-c", "echo out; echo err >&2; exit 7")).wait()
    assert said(end) == [(OUT, b"out\n"), (ERR, b"err\n")]
    assert (end.exit_code, end.running, end.unheard) == (7, False, 0)
    assert agent.descriptors() <= before


async def test_it_comes_in_the_order_in_which_it_was_said(begin):
    script = "echo a >&2; sleep 0.005; echo b; sleep 0.005; echo c >&2"
    end = await (await begin("sh", "-c", script)).wait(or_output=False)
    assert said(end) == [(ERR, b"a\n"), (OUT, b"b\n"), (ERR, b"c\n")]


async def test_a_wait_for_the_end_alone_brings_all_too(begin):
    end = await (await begin("sh", "-c", "echo out; sleep 0.2; echo more")).wait(or_output=False)
    assert (said(end), end.unheard) == ([(OUT, b"out\nmore\n")], 0)


async def test_who_waits_after_the_end_has_it_all(begin):
    process = await begin("echo", "out")
    await asyncio.sleep(0.1)
    assert said(await process.wait()) == [(OUT, b"out\n")]


async def test_all_who_wait_are_told_the_same(begin):
    process = await begin("sh", "-c", "sleep 0.2; echo out")
    both = await asyncio.gather(process.wait(), process.wait(or_output=False))
    assert [said(end) for end in both] == [[(OUT, b"out\n")]] * 2


async def test_errors_that_go_with_the_output_keep_their_place(begin):
    one = f"late://{secrets.token_hex(6)}"
    process = await begin("sh", "-c", "echo a; echo b >&2; echo c", stdout=one, stderr=one)
    assert said(await process.wait()) == [(OUT, b"a\nb\nc\n")]


async def test_full_pipes_come_whole(begin):
    script = "head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2"
    end = await (await begin("sh", "-c", script)).wait(or_output=False)
    assert said(end) == [(OUT, bytes(65536)), (ERR, bytes(65536))]
    assert end.unheard == 0


async def test_one_that_speaks_and_goes_on_is_heard_by_streams_then(begin):
    process = await begin("sh", "-c", f"echo first; sleep 0.3; echo second; {FOREVER}")
    told = await process.wait()
    assert (told.running, told.unheard, said(told)) == (True, OUT | ERR, [(OUT, b"first\n")])
    out, err = await process.open(process.out), await process.open(process.err)
    ending = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0.5)
    assert not ending.done()
    await process.agent.kill(process.id, everything=True)
    assert (await out, await err) == (b"second\n", b"")
    end = await ending
    assert (end.running, end.unheard, said(end), end.signal) == (False, 0, [], signal.SIGKILL)


async def test_what_it_says_between_is_for_the_streams_whenever_they_come(begin):
    """Also when it has ended, and been waited for, before they do."""
    process = await begin("sh", "-c", "echo first; sleep 0.2; echo second")
    assert (await process.wait()).running
    await asyncio.sleep(0.4)
    out = await process.open(process.out)
    end = await process.wait()
    assert (end.running, said(end)) == (False, [])
    err = await process.open(process.err)
    async with asyncio.timeout(10):
        assert (await out, await err) == (b"second\n", b"")


@pytest.mark.parametrize("command", ["exec > >(cat); echo hi", "sleep 0.01 & sleep 0.0102"])
async def test_streams_that_were_asked_for_are_taken_though_their_writers_have_ended(begin, command):
    """Whoever holds the pipes of one that has ended may end just after it."""
    for _ in range(100):
        process = await begin("bash", "-c", command)
        answer = await process.wait()
        async with asyncio.timeout(10):
            for number, name in ((OUT, process.out), (ERR, process.err)):
                if answer.unheard & number:
                    await (await process.open(name))
        if answer.running:
            await process.wait()


async def test_a_wait_that_comes_after_it_has_spoken_is_answered_at_once(begin):
    process = await begin("sh", "-c", f"echo first; {FOREVER}")
    await asyncio.sleep(0.2)
    assert said(await process.wait(timeout=5)) == [(OUT, b"first\n")]
    await process.agent.kill(process.id, everything=True)


async def test_one_that_is_silent_is_waited_for(begin):
    process = await begin("sh", "-c", f"sleep 0.5; echo at last >&2; {FOREVER}")
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert said(await waiting) == [(ERR, b"at last\n")]
    await process.agent.kill(process.id, everything=True)


async def test_an_output_that_has_ended_needs_no_stream(begin):
    process = await begin("sh", "-c", f"echo out; exec >&-; {FOREVER}")
    told = await process.wait()
    assert (told.running, told.unheard, said(told)) == (True, ERR, [(OUT, b"out\n")])
    await process.agent.kill(process.id, everything=True)


async def test_one_that_closes_its_outputs_has_nothing_to_tell(begin):
    process = await begin("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 3")
    end = await process.wait()
    assert (end.running, end.exit_code) == (False, 3)


async def test_megabytes_arrive(begin):
    process = await begin("seq", "1", "200000")
    told = await process.wait()
    assert told.running
    out, err = await process.open(process.out), await process.open(process.err)
    ((_, head),) = said(told)
    assert head + await out == b"".join(b"%d\n" % number for number in range(1, 200001))
    assert await err == b""
    assert (await process.wait()).exit_code == 0


async def test_one_that_says_much_is_not_kept_waiting(begin):
    process = await begin("sh", "-c", f"head -c 100000 /dev/zero; {FOREVER}")
    told = await process.wait()
    assert told.running
    assert 64 * 1024 <= sum(len(data) for _, data in said(told)) <= 100_000
    await process.agent.kill(process.id, everything=True)


async def test_one_that_says_little_very_often_is_told_of_too(begin):
    process = await begin("python3", "-c", "import os\nfor _ in range(20_000): os.write(1, b'x')")
    told = await process.wait()
    assert len(told.said) <= 1010
    ((_, head),) = said(told)
    tail = b""
    if told.unheard:
        out, err = await process.open(process.out), await process.open(process.err)
        tail = await out + await err
    assert head + tail == b"x" * 20_000


async def test_more_than_an_answer_takes_is_for_the_stream(begin):
    enlarge = "import fcntl, sys; fcntl.fcntl(1, 1031, 1 << 20); sys.stdout.write('x' * 900_000)"
    process = await begin("python3", "-c", enlarge)
    end = await process.wait(or_output=False)
    assert (end.running, end.unheard) == (False, OUT)
    ((_, head),) = said(end)
    assert head + await (await process.open(process.out)) == b"x" * 900_000


async def test_what_a_child_says_after_the_end_is_for_the_streams(begin):
    process = await begin("sh", "-c", "echo out; (sleep 0.5; echo child) & exit 4")
    end = await process.wait(or_output=False)
    assert (end.running, end.unheard, said(end), end.exit_code) == (False, OUT | ERR, [(OUT, b"out\n")], 4)
    out, err = await process.open(process.out), await process.open(process.err)
    assert (await out, await err) == (b"child\n", b"")


async def test_a_stream_that_is_there_already_is_used_at_once(agent, begin, tools):
    out = secrets.token_hex(6)
    sock, _ = await agent.greet(out.encode())
    process = await begin("sh", "-c", "echo out; echo err >&2", stdout=f"late://{out}")
    assert await tools.read_all(sock) == b"out\n"
    assert said(await process.wait()) == [(ERR, b"err\n")]


async def test_a_stream_opened_without_being_asked_for_is_used_from_then_on(begin):
    process = await begin("sh", "-c", "sleep 0.2; echo out; exit 5")
    out = await process.open(process.out)
    end = await process.wait()
    assert (end.running, end.exit_code, said(end)) == (False, 5, [])
    assert await out == b"out\n"


async def test_who_gives_up_waiting_leaves_the_others_waiting(begin):
    process = await begin("sh", "-c", "sleep 0.6; echo out")
    other = asyncio.ensure_future(process.wait())
    with pytest.raises((StatusError, TimeoutError)):
        await process.wait(timeout=0.1)
    assert said(await other) == [(OUT, b"out\n")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stdin": "late://in"}, "'late://in' is not the name of a stream"),
        ({"stdout": "late://" + 129 * "x"}, "the id of a stream has at most 128 bytes"),
        ({"stdout": "late://"}, "'late://' is not the name of a stream"),
        ({"tty": pb.WindowSize(rows=24, columns=80)}, "with a tty"),
    ],
)
async def test_what_cannot_be_late_is_refused(agent, begin, fields, words):
    await (await begin("true")).wait()
    before = agent.descriptors()
    with pytest.raises(StatusError, match=words) as info:
        await begin("true", **fields)
    assert info.value.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    assert agent.descriptors() <= before


async def test_hundreds_leave_nothing_open(agent, begin):
    before = agent.descriptors()
    for _ in range(4):
        many = [await begin("echo", str(number)) for number in range(100)]
        ends = await asyncio.gather(*(process.wait(or_output=False) for process in many))
        assert [said(end) for end in ends] == [[(OUT, b"%d\n" % number)] for number in range(100)]
    await agent.eventually(lambda: agent.descriptors() <= before + 2)
