"""Cutting a byte stream into frames."""

from __future__ import annotations

import tracemalloc

import pytest

from sandbox_nb.ttrpc import Code, StatusError
from sandbox_nb.ttrpc.frames import DATA, HEADER_SIZE, MAX_PAYLOAD, REQUEST, Frame, FrameDecoder, encode_frame


def header(length: int, stream: int = 1, kind: int = DATA, flags: int = 0) -> bytes:
    return length.to_bytes(4, "big") + stream.to_bytes(4, "big") + bytes([kind, flags])


def test_the_header_is_ten_bytes_big_endian():
    assert encode_frame(0x01020304, REQUEST, 2, b"abc") == b"\0\0\0\3\1\2\3\4\1\2abc"


@pytest.mark.parametrize("size", [1, 2, 3, 9, 10, 11, 12, 1000])
def test_frames_come_out_whole_however_the_bytes_were_torn(size: int):
    frames = [Frame(number, DATA, number % 8, number, bytes(number)) for number in range(40)]
    data = b"".join(encode_frame(frame.stream, frame.type, frame.flags, frame.payload) for frame in frames)
    decoder = FrameDecoder()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert [frame for piece in pieces for frame in decoder.receive_data(piece)] == frames


def test_a_payload_of_the_limit_passes_and_one_byte_more_does_not():
    payload = bytes(MAX_PAYLOAD)
    [frame] = FrameDecoder().receive_data(encode_frame(1, DATA, 0, payload))
    assert frame.payload == payload
    with pytest.raises(StatusError, match=f"{MAX_PAYLOAD + 1} bytes") as caught:
        encode_frame(1, DATA, 0, bytes(MAX_PAYLOAD + 1))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("torn", [1, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1, MAX_PAYLOAD])
def test_an_oversize_frame_is_told_at_its_header_and_its_payload_skipped(torn: int):
    decoder = FrameDecoder()
    length = MAX_PAYLOAD + 1
    data = header(length, 7) + bytes(length) + encode_frame(9, DATA, 0, b"next")
    first = decoder.receive_data(data[:torn])
    rest = decoder.receive_data(data[torn:])
    assert first + rest == [Frame(7, DATA, 0, length, None), Frame(9, DATA, 0, 4, b"next")]
    assert len(first) == (torn >= HEADER_SIZE)


def test_the_longest_length_there_is_takes_no_memory():
    decoder = FrameDecoder()
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        [frame] = decoder.receive_data(header(2**32 - 1))
        for _ in range(64):
            assert decoder.receive_data(piece) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.payload is None
    assert peak < 1 << 16


def test_a_promise_of_bytes_takes_no_memory_before_they_come():
    tracemalloc.start()
    try:
        decoder = FrameDecoder()
        assert decoder.receive_data(header(MAX_PAYLOAD) + b"x") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16


def test_payloads_do_not_share_the_memory_they_were_read_into():
    memory = bytearray(encode_frame(1, DATA, 0, b"abc") + header(3)[:5])
    decoder = FrameDecoder()
    [frame] = decoder.receive_data(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert frame.payload == b"abc"
    assert decoder.receive_data(header(3)[5:] + b"def") == [Frame(1, DATA, 0, 3, b"def")]
