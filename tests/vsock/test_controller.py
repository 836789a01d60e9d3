"""The host's side of control, against a device by hand and against the device process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import pytest

from sandbox_nb.vsock.controller import Controller


@pytest.fixture
def ends():
    """A controller, and the socket of its device."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    controller = Controller(ours)
    yield controller, theirs
    controller.close()
    theirs.close()


async def take(sock):
    data = b""
    while not data.endswith(b"\n"):
        data += await asyncio.get_running_loop().sock_recv(sock, 4096)
    return [json.loads(line) for line in data.splitlines()]


async def answer(sock, **fields):
    await asyncio.get_running_loop().sock_sendall(sock, json.dumps(fields).encode() + b"\n")


async def test_questions_wait_their_turn_and_get_their_own_answers(ends):
    controller, device = ends
    asking = [asyncio.create_task(controller.ask("statistics", number=number)) for number in (1, 2)]
    for expected in (1, 2):
        (question,) = await take(device)
        assert (question["command"], question["number"]) == ("statistics", expected)
        await answer(device, id=question["id"], result=expected * 10)
    assert await asyncio.gather(*asking) == [10, 20]


async def test_the_answer_to_a_question_given_up_goes_to_nobody(ends):
    controller, device = ends
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.ask("statistics"), 0.05)
    (first,) = await take(device)
    asking = asyncio.create_task(controller.ask("statistics"))
    (second,) = await take(device)
    await answer(device, id=first["id"], result="late")
    await answer(device, id=second["id"], result="right")
    assert await asking == "right"


async def test_a_refusal_and_an_end_are_errors(ends):
    controller, device = ends
    asking = asyncio.create_task(controller.ask("trace", file="/no/such"))
    (question,) = await take(device)
    await answer(device, id=question["id"], error="FileNotFoundError: /no/such")
    with pytest.raises(OSError, match="/no/such"):
        await asking
    device.close()
    with pytest.raises(ConnectionError):
        await controller.ask("statistics")


async def test_a_device_that_ends_instead_of_an_answer_is_said_to_be_gone(ends):
    controller, device = ends
    asking = asyncio.create_task(controller.ask("statistics"))
    await take(device)
    device.close()
    with pytest.raises(ConnectionResetError, match="the vsock device is gone"):
        await asking


async def test_with_the_device_process(folder):
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "sandbox_nb.vsock", "--socket", folder / "vhost", "--uds", folder / "v"]
    with theirs:
        device = subprocess.Popen(
            [*command, "--control-fd", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
    controller = Controller(ours)
    numbers = await controller.ask("statistics")
    assert (numbers["attached"], numbers["streams"]) == (False, [])
    assert await controller.ask("trace", file=str(folder / "trace"), snap=8) is None
    controller.close()
    assert await asyncio.to_thread(device.wait, 10) == 0
    assert device.stderr is not None
    device.stderr.close()
