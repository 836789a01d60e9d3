"""One front end (QEMU) on the vhost-user socket: what it asks for, and the queues it sets up."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

from . import vhost_user
from .framing import Inbox
from .loop import READ
from .memory import GuestMemory, MemoryFault
from .vhost_user import Message, ProtocolError
from .virtqueue import QueueError, Virtqueue
from .vring import EventFileError, Vring, map_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .loop import Loop
    from .trace import Tap

RX, TX = 0, 1
"""The queues served here, named from the guest's side (virtio 1.2, 5.10.2). The front end serves the events."""

FEATURES = (
    vhost_user.VIRTIO_F_VERSION_1
    | vhost_user.VHOST_USER_F_PROTOCOL_FEATURES
    | vhost_user.VIRTIO_RING_F_INDIRECT_DESC
    | vhost_user.VIRTIO_RING_F_EVENT_IDX
)
PROTOCOL_FEATURES = vhost_user.PROTOCOL_F_MQ | vhost_user.PROTOCOL_F_REPLY_ACK | vhost_user.PROTOCOL_F_CONFIG

_FDS_SPACE = socket.CMSG_SPACE(4 * vhost_user.MAX_REGIONS)


class FrontEnd:
    """A connected front end.

    `on_change` is called when queues begin or end, `on_stop` just before they are stopped, and `on_gone` once,
    when the front end is lost.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        cid: int,
        tap: Tap,
        *,
        on_change: Callable[[], None],
        on_stop: Callable[[], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self.inbox: Inbox | None = None
        """The running receive queue; None unless both queues run."""
        self.outbox: Virtqueue | None = None
        """The running transmit queue; None unless both queues run."""
        self.fresh = False
        """Whether the queues began at their beginning: the driver has started anew, its connections are gone."""
        self._socket = sock
        self._loop = loop
        self._config = struct.pack("<Q", cid)
        self._tap = tap
        self._on_change = on_change
        self._on_stop = on_stop
        self._on_gone = on_gone
        self._decoder = vhost_user.Decoder()
        self._features = 0
        self._protocol_features = 0
        self._memory = GuestMemory()
        self._vrings = (Vring(loop), Vring(loop))
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._on_socket)

    def close(self) -> None:
        """Let go of the socket, the guest's memory and all event files."""
        self._loop.discard(self._socket)
        _close(self._decoder.abandon())
        for vring in self._vrings:
            vring.close()
        self.inbox = self.outbox = None
        self._memory = GuestMemory()

    def hung_up(self) -> bool:
        """Whether the front end has closed its end, perhaps before the loop has noticed."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def interrupt(self, index: int) -> None:
        """Interrupt the driver for a queue. EventFileError if it cannot be done."""
        self._vrings[index].interrupt()

    def report_broken(self) -> None:
        """Stop the queues until the driver resets the device, and tell the front end if it listens."""
        self.inbox = self.outbox = None
        with contextlib.suppress(EventFileError):
            for vring in self._vrings:
                vring.report_error()

    # Messages.

    def _on_socket(self, _events: int) -> None:
        try:
            while message := self._receive():
                self._handle(message)
        except BlockingIOError:
            pass
        except (ProtocolError, MemoryFault, QueueError, OSError) as error:
            self._on_gone(f"front end dropped: {error}")

    def _receive(self) -> Message | None:
        """The next message; None if the front end has gone, BlockingIOError if it has not come yet."""
        while True:
            data, ancillary, flags, _ = self._socket.recvmsg(
                self._decoder.wanted, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC
            )
            fds = [
                fd
                for level, kind, content in ancillary
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])
            ]
            if not data:
                self._on_gone("")
                return None
            if flags & socket.MSG_CTRUNC:
                _close(fds)
                raise ProtocolError(f"more than {vhost_user.MAX_REGIONS} file descriptors with one message")
            if message := self._decoder.feed(data, fds):
                return message

    def _handle(self, message: Message) -> None:
        handler = _HANDLERS.get(message.request)
        if handler is None or (message.fds and message.request not in _WITH_FDS):
            _close(message.fds)
            raise ProtocolError(f"request {message.request} with {len(message.fds)} file descriptors")
        answer = handler(self, message)
        if answer is not None:
            self._socket.send(vhost_user.reply(message.request, answer))
        elif message.need_reply and self._protocol_features & vhost_user.PROTOCOL_F_REPLY_ACK:
            self._socket.send(vhost_user.ack(message.request))

    def _get_features(self, _message: Message) -> bytes:
        return vhost_user.encode_u64(FEATURES)

    def _set_features(self, message: Message) -> None:
        self._features = vhost_user.decode_u64(message)
        if unknown := self._features & ~FEATURES:
            raise ProtocolError(f"features {unknown:#x} were not offered")
        if not self._features & vhost_user.VHOST_USER_F_PROTOCOL_FEATURES:
            for vring in self._vrings:
                vring.enabled = True

    def _get_protocol_features(self, _message: Message) -> bytes:
        return vhost_user.encode_u64(PROTOCOL_FEATURES)

    def _set_protocol_features(self, message: Message) -> None:
        self._protocol_features = vhost_user.decode_u64(message)

    def _get_queue_num(self, _message: Message) -> bytes:
        return vhost_user.encode_u64(len(self._vrings))

    def _get_config(self, message: Message) -> bytes:
        offset, size = vhost_user.decode_config(message)
        return vhost_user.encode_config(offset, self._config[offset : offset + size])

    def _set_mem_table(self, message: Message) -> None:
        """Map the guest's memory. Running queues go on in the new mapping, at the same addresses."""
        try:
            regions = [map_region(region) for region in vhost_user.decode_mem_table(message)]
        finally:
            _close(message.fds)
        self._memory = GuestMemory(regions)
        if self.inbox and self.outbox:
            self._pause()
            self._begin()

    def _set_vring_num(self, message: Message) -> None:
        index, num = vhost_user.decode_vring_state(message)
        self._vring(index).num = num

    def _set_vring_base(self, message: Message) -> None:
        index, base = vhost_user.decode_vring_state(message)
        self._vring(index).base = base

    def _get_vring_base(self, message: Message) -> bytes:
        """Stop a queue; where it stands."""
        index, _ = vhost_user.decode_vring_state(message)
        self._on_stop()
        vring = self._vring(index)
        self._pause()
        vring.set_kick(None)
        return vhost_user.encode_vring_state(vhost_user.VringState(index, vring.base))

    def _set_vring_addr(self, message: Message) -> None:
        address = vhost_user.decode_vring_address(message)
        self._vring(address.queue).address = address

    def _set_vring_kick(self, message: Message) -> None:
        self._set_fd(message, Vring.set_kick)
        self._begin()

    def _set_vring_call(self, message: Message) -> None:
        self._set_fd(message, Vring.set_call)

    def _set_vring_err(self, message: Message) -> None:
        self._set_fd(message, Vring.set_error)

    def _set_vring_enable(self, message: Message) -> None:
        index, enabled = vhost_user.decode_vring_state(message)
        vring = self._vring(index)
        if vring.enabled != bool(enabled):
            self._pause()
            vring.enabled = bool(enabled)
            self._begin()

    def _nothing(self, _message: Message) -> None:
        """SET_OWNER means nothing where a socket has one owner; RESET_OWNER is deprecated to mean nothing."""

    def _vring(self, index: int) -> Vring:
        if index >= len(self._vrings):
            raise ProtocolError(f"queue {index}; there are {len(self._vrings)}")
        return self._vrings[index]

    def _set_fd(self, message: Message, place: Callable[[Vring, int | None], None]) -> None:
        try:
            index, fd = vhost_user.decode_vring_fd(message)
            vring = self._vring(index)
        except ProtocolError:
            _close(message.fds)
            raise
        place(vring, fd)

    # Queues.

    def _begin(self) -> None:
        """Run both queues if both are complete: a queue alone is of no use to a connection."""
        rx, tx = self._vrings
        if not rx.complete or not tx.complete:
            return
        event_idx = bool(self._features & vhost_user.VIRTIO_RING_F_EVENT_IDX)
        self.fresh = not rx.base and not tx.base
        self.inbox = Inbox(rx.queue(self._memory, writable=True, event_idx=event_idx), self._tap)
        self.outbox = tx.queue(self._memory, writable=False, event_idx=event_idx)
        self._on_change()

    def _pause(self) -> None:
        """Stop both queues, noting where they stand."""
        if self.inbox and self.outbox:
            self._vrings[RX].base = self.inbox.queue.base
            self._vrings[TX].base = self.outbox.base
            self.inbox = self.outbox = None
            self._on_change()


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


_HANDLERS: dict[int, Callable[[FrontEnd, Message], bytes | None]] = {
    vhost_user.GET_FEATURES: FrontEnd._get_features,
    vhost_user.SET_FEATURES: FrontEnd._set_features,
    vhost_user.SET_OWNER: FrontEnd._nothing,
    vhost_user.RESET_OWNER: FrontEnd._nothing,
    vhost_user.GET_PROTOCOL_FEATURES: FrontEnd._get_protocol_features,
    vhost_user.SET_PROTOCOL_FEATURES: FrontEnd._set_protocol_features,
    vhost_user.GET_QUEUE_NUM: FrontEnd._get_queue_num,
    vhost_user.GET_CONFIG: FrontEnd._get_config,
    vhost_user.SET_MEM_TABLE: FrontEnd._set_mem_table,
    vhost_user.SET_VRING_NUM: FrontEnd._set_vring_num,
    vhost_user.SET_VRING_ADDR: FrontEnd._set_vring_addr,
    vhost_user.SET_VRING_BASE: FrontEnd._set_vring_base,
    vhost_user.GET_VRING_BASE: FrontEnd._get_vring_base,
    vhost_user.SET_VRING_KICK: FrontEnd._set_vring_kick,
    vhost_user.SET_VRING_CALL: FrontEnd._set_vring_call,
    vhost_user.SET_VRING_ERR: FrontEnd._set_vring_err,
    vhost_user.SET_VRING_ENABLE: FrontEnd._set_vring_enable,
}
_WITH_FDS = {
    vhost_user.SET_MEM_TABLE,
    vhost_user.SET_VRING_KICK,
    vhost_user.SET_VRING_CALL,
    vhost_user.SET_VRING_ERR,
}
