"""Outputs whose streams the host opens only when there is something to hear."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError

pytestmark = pytest.mark.parametrize("native_agent", ["sanitized", "shipped"], indirect=True)

FOREVER = "sleep 600"


class Late:
    """A process with late outputs: its id, and the ids of their streams."""

    def __init__(self, agent, tools, identity, out, err):
        self.agent, self.tools = agent, tools
        self.id, self.out, self.err = identity, out, err

    async def wait(self, *, or_output=True, timeout=None):
        request = pb.WaitRequest(id=self.id, or_output=or_output)
        return await self.agent.processes.wait(request, timeout=timeout)

    async def open(self):
        """Open both streams; what each brings until its end."""
        socks = [(await self.agent.greet(name.encode()))[0] for name in (self.out, self.err)]
        return [asyncio.ensure_future(self.tools.read_all(sock)) for sock in socks]


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
    assert (end.stdout, end.stderr, end.exit_code) == (b"out\n", b"err\n", 7)
    assert not end.running
    assert not end.unheard
    assert agent.descriptors() <= before


async def test_a_wait_for_the_end_alone_brings_it_too(begin):
    end = await (await begin("sh", "-c", "echo out; sleep 0.2; echo more")).wait(or_output=False)
    assert (end.stdout, end.stderr, end.unheard) == (b"out\nmore\n", b"", False)


async def test_who_waits_after_the_end_has_it_all(begin):
    process = await begin("echo", "out")
    await asyncio.sleep(0.1)
    assert (await process.wait()).stdout == b"out\n"


async def test_all_who_wait_are_told_the_same(begin):
    process = await begin("sh", "-c", "sleep 0.2; echo out")
    both = await asyncio.gather(process.wait(), process.wait(or_output=False))
    assert [end.stdout for end in both] == [b"out\n"] * 2


async def test_errors_that_go_with_the_output_keep_their_place(begin):
    one = f"late://{secrets.token_hex(6)}"
    process = await begin("sh", "-c", "echo a; echo b >&2; echo c", stdout=one, stderr=one)
    end = await process.wait()
    assert (end.stdout, end.stderr) == (b"a\nb\nc\n", b"")


async def test_a_full_pipe_comes_whole(begin):
    end = await (await begin("head", "-c", "65536", "/dev/zero")).wait()
    assert end.stdout == bytes(65536)


async def test_one_that_speaks_and_goes_on_is_heard_from_its_first_byte(begin):
    process = await begin("sh", "-c", "echo first; read line < /dev/zero; echo never")
    told = await process.wait()
    assert (told.running, told.unheard, told.stdout) == (True, True, b"")
    out, err = await process.open()
    ending = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0.1)
    assert not ending.done()
    await process.agent.kill(process.id)
    assert (await out, await err) == (b"first\n", b"")
    end = await ending
    assert (end.running, end.unheard, end.stdout, end.signal) == (False, False, b"", 9)


async def test_a_wait_that_comes_after_it_has_spoken_is_answered_at_once(begin):
    process = await begin("sh", "-c", f"echo first; {FOREVER}")
    await asyncio.sleep(0.2)
    assert (await process.wait(timeout=5)).running
    await process.agent.kill(process.id, everything=True)


async def test_one_that_is_silent_is_not_asked_about(begin):
    process = await begin("sh", "-c", f"sleep 0.5; echo at last >&2; {FOREVER}")
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert (await waiting).running
    out, err = await process.open()
    await process.agent.kill(process.id, everything=True)
    assert (await out, await err) == (b"", b"at last\n")


async def test_one_that_closes_its_outputs_has_nothing_to_tell(begin):
    process = await begin("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 3")
    end = await process.wait()
    assert (end.running, end.exit_code) == (False, 3)


async def test_megabytes_that_outgrow_the_pipe_arrive(begin):
    process = await begin("seq", "1", "200000")
    assert (await process.wait()).running
    out, err = await process.open()
    assert await out == b"".join(b"%d\n" % number for number in range(1, 200001))
    assert await err == b""
    assert (await process.wait()).exit_code == 0


async def test_more_than_a_message_takes_is_for_the_streams(begin):
    enlarge = "import fcntl, sys; fcntl.fcntl(1, 1031, 1 << 20); sys.stdout.write('x' * 500_000)"
    process = await begin("python3", "-c", enlarge)
    end = await process.wait(or_output=False)
    assert (end.running, end.unheard, end.stdout) == (False, True, b"")
    out, err = await process.open()
    assert (await out, await err) == (b"x" * 500_000, b"")


async def test_what_a_child_says_after_the_end_is_for_the_streams(begin):
    process = await begin("sh", "-c", "echo out; (sleep 0.5; echo child) & exit 4")
    end = await process.wait(or_output=False)
    assert (end.running, end.unheard, end.stdout, end.exit_code) == (False, True, b"", 4)
    out, err = await process.open()
    assert (await out, await err) == (b"out\nchild\n", b"")


async def test_a_stream_that_is_there_already_is_used_at_once(agent, begin, tools):
    out = secrets.token_hex(6)
    sock, _ = await agent.greet(out.encode())
    process = await begin("sh", "-c", "echo out; echo err >&2", stdout=f"late://{out}")
    assert await tools.read_all(sock) == b"out\n"
    end = await process.wait()
    assert (end.stdout, end.stderr) == (b"", b"err\n")


async def test_a_stream_opened_without_being_asked_is_used_from_then_on(begin):
    process = await begin("sh", "-c", "sleep 0.2; echo out; exit 5")
    out, err = await process.open()
    end = await process.wait()
    assert (end.running, end.exit_code, end.stdout) == (False, 5, b"")
    assert (await out, await err) == (b"out\n", b"")


async def test_who_gives_up_waiting_leaves_the_others_waiting(begin):
    process = await begin("sh", "-c", "sleep 0.6; echo out")
    other = asyncio.ensure_future(process.wait())
    with pytest.raises((StatusError, TimeoutError)):
        await process.wait(timeout=0.1)
    assert (await other).stdout == b"out\n"


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
        assert [end.stdout for end in ends] == [b"%d\n" % number for number in range(100)]
    await agent.eventually(lambda: agent.descriptors() <= before + 2)
