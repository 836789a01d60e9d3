from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_nb.vsock import vhost_user
from sandbox_nb.vsock.vhost_user import Decoder, MemoryRegion, Message, ProtocolError


def message(payload=b"", fds=(), request=1):
    return Message(request, False, payload, tuple(fds))


def wire(request, payload=b"", flags=1):
    return struct.pack("<III", request, flags, len(payload)) + payload


def test_messages_come_out_however_the_bytes_come_in():
    decoder = Decoder()
    stream = wire(1) + wire(9, bytes(40)) + wire(2, b"12345678", flags=9)
    found = []
    while stream:
        assert decoder.wanted > 0
        fds = [7] if stream[:1] == b"\x09" and not found[1:] else []
        if made := decoder.feed(stream[:1], fds):
            found.append(made)
        stream = stream[1:]
    assert found == [message(), message(bytes(40), [7], 9), Message(2, True, b"12345678", ())]


def test_no_byte_of_the_next_message_is_asked_for():
    decoder = Decoder()
    assert decoder.wanted == 12
    decoder.feed(wire(2, b"12345678")[:12], [])
    assert decoder.wanted == 8


@pytest.mark.parametrize("flags", [0, 2, 5])
def test_a_message_of_another_version_or_a_reply_is_refused(flags):
    with pytest.raises(ProtocolError, match=f"flags {flags:#x}"):
        Decoder().feed(wire(1, flags=flags), [])


def test_an_endless_message_is_refused_at_its_header():
    with pytest.raises(ProtocolError, match="4294967295 bytes of payload"):
        Decoder().feed(struct.pack("<III", 1, 1, 0xFFFF_FFFF), [])


def test_file_descriptors_without_end_are_refused_and_not_forgotten():
    decoder = Decoder()
    decoder.feed(b"\x05", list(range(8)))
    with pytest.raises(ProtocolError, match="9 file descriptors"):
        decoder.feed(b"\x00", [8])
    assert decoder.abandon() == list(range(9))


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_bytes_of_any_kind_are_messages_or_refused(pieces):
    decoder = Decoder()
    for piece in pieces:
        while piece:
            try:
                wanted = decoder.wanted
                decoder.feed(piece[:wanted], [])
            except ProtocolError:
                return
            piece = piece[wanted:]
        assert len(decoder._data) <= vhost_user.HEADER_SIZE + vhost_user.MAX_PAYLOAD


def test_a_memory_table_pairs_regions_and_files():
    payload = (
        struct.pack("<II", 2, 0) + struct.pack("<QQQQ", 0, 10, 100, 0) + struct.pack("<QQQQ", 50, 20, 200, 4096)
    )
    assert vhost_user.decode_mem_table(message(payload, [5, 6])) == [
        MemoryRegion(0, 10, 100, 0, 5),
        MemoryRegion(50, 20, 200, 4096, 6),
    ]


def test_room_for_regions_that_are_not_there_is_no_mistake():
    payload = struct.pack("<II", 1, 0) + struct.pack("<QQQQ", 0, 10, 100, 0) + bytes(32 * 7)
    assert len(vhost_user.decode_mem_table(message(payload, [5]))) == 1


@pytest.mark.parametrize(
    ("payload", "fds"),
    [
        (b"", []),
        (struct.pack("<II", 1, 0), [5]),
        (struct.pack("<II", 1, 0) + bytes(32), []),
        (struct.pack("<II", 9, 0) + bytes(32 * 9), list(range(9))),
        (struct.pack("<II", 0xFFFF_FFFF, 0) + bytes(32), [5]),
        (struct.pack("<IIQQQQ", 1, 0, 0, 0, 0, 0), [5]),
        (struct.pack("<IIQQQQ", 1, 0, 4096, (1 << 64) - 1, 0, 0), [5]),
        (struct.pack("<IIQQQQ", 1, 0, 0, (1 << 64) - 1, 0, 4096), [5]),
    ],
    ids=[
        "nothing",
        "no region",
        "no file",
        "nine",
        "millions",
        "empty region",
        "past the end",
        "offset past the end",
    ],
)
def test_a_memory_table_that_cannot_be_is_refused(payload, fds):
    with pytest.raises(ProtocolError, match=r"memory (table|region)"):
        vhost_user.decode_mem_table(message(payload, fds))


@pytest.mark.parametrize(
    "decode", [vhost_user.decode_u64, vhost_user.decode_vring_state, vhost_user.decode_vring_address]
)
@pytest.mark.parametrize("size", [0, 7, 9, 41])
def test_a_payload_of_the_wrong_size_is_refused(decode, size):
    with pytest.raises(ProtocolError, match=f"{size} bytes"):
        decode(message(bytes(size)))


@pytest.mark.parametrize("places", [(8, 0, 0), (0, 2, 0), (0, 0, 1)])
def test_a_misaligned_queue_is_refused(places):
    with pytest.raises(ProtocolError, match="misaligned"):
        vhost_user.decode_vring_address(message(struct.pack("<IIQQQQ", 0, 0, *places, 0)))


def test_an_event_file_is_there_or_said_not_to_be():
    def u64(value):
        return struct.pack("<Q", value)

    assert vhost_user.decode_vring_fd(message(u64(1), [9])) == (1, 9)
    assert vhost_user.decode_vring_fd(message(u64(1 | 1 << 8))) == (1, None)
    for payload, fds in ((u64(1), []), (u64(1 | 1 << 8), [9]), (u64(1), [8, 9])):
        with pytest.raises(ProtocolError, match="file descriptors"):
            vhost_user.decode_vring_fd(message(payload, fds))


def test_answers_are_marked_as_such():
    assert vhost_user.ack(5).hex() == "050000000500000008000000" + "00" * 8
