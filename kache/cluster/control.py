"""The channel between the supervisor and its children.

The messages are in `kache.cluster.messages`: what a child is told when it starts (`ChildContext`), what goes down to it
(`Down`) and up from it (`Up`). The same messages and the same framing serve the supervisor's admin socket, which the
command line speaks. Framing: ``u32 length | msgpack``, little-endian, length counting the msgpack bytes.

A child is entered as ``run(ctx)`` of ``kache.router.main`` or ``kache.shard.main``; it finds its listeners in the
context, already bound and listening. `ControlChannel` is the child's end and lives on the child's event loop (this
module imports no event loop: it uses the one it is given). `Conversation` is the supervisor's end: it never blocks,
and is driven by the supervisor's selector.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from kache.cluster.messages import Ack, Answer, AskRouters, Down, Question, Request, StatusReply, Up
from kache.errors import KacheError

if TYPE_CHECKING:
    import asyncio

__all__ = ["ControlChannel", "ControlError", "Conversation", "LateError", "receive", "send"]

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one message; far above any real one, so that a stray peer cannot make a process grow."""
ANSWER_SECONDS = 3.0
"""How long the routers may take to answer the question of another one, which then goes on with what there is.

Not shorter: without the answer of one that only had no time just now CLIENT LIST, INFO and the like would be wrong.
"""
PART_BYTES = 1024 * 1024
"""A longer answer is sent in parts, so that its length is not limited by that of a message."""


class ControlError(KacheError):
    """The peer refused, vanished, or sent what is not a control message."""


class LateError(ControlError):
    """The peer has not answered in time."""


_encoder = msgspec.msgpack.Encoder()
_down_decoder = msgspec.msgpack.Decoder(Down)
_up_decoder = msgspec.msgpack.Decoder(Up)


def pack(message: Down | Up) -> bytes:
    """`message` with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "little") + body


def _take(buffer: bytearray) -> bytes | None:
    """The first whole message of `buffer`, removed from it, or None when there is none yet."""
    if len(buffer) < 4:
        return None
    length = int.from_bytes(buffer[:4], "little")
    if length > MESSAGE_LIMIT:
        raise ControlError(f"a control message of {length} bytes is too long")
    if len(buffer) < 4 + length:
        return None
    body = bytes(buffer[4 : 4 + length])
    del buffer[: 4 + length]
    return body


def send(sock: socket.socket, message: Down | Up) -> None:
    """Send one message over a blocking socket."""
    sock.sendall(pack(message))


def receive(sock: socket.socket, buffer: bytearray) -> Down:
    """The next message from the supervisor over a blocking socket; `buffer` keeps what came too early."""
    while (body := _take(buffer)) is None:
        try:
            data = sock.recv(65536)
        except TimeoutError:
            raise LateError("the supervisor did not answer in time") from None
        except OSError as error:
            raise ControlError(f"the supervisor is gone: {error.strerror}") from None
        if not data:
            raise ControlError("the supervisor is gone")
        buffer += data
    try:
        message: Down = _down_decoder.decode(body)
        return message
    except msgspec.MsgspecError as error:
        raise ControlError(f"not a control message: {error}") from None


class _Stream:
    """Non-blocking framing over one socket: whole messages out, whole messages in.

    `descriptors` are those that came with messages and were not taken yet; None lets none come.
    """

    def __init__(self, sock: socket.socket, descriptors: deque[int] | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.descriptors = descriptors
        self.inbuf = bytearray()
        self.out = bytearray()

    def read(self) -> tuple[list[bytes], bool]:
        """The whole messages that have come, and whether the peer is still there."""
        alive = True
        try:
            data = self._receive()
            alive = bool(data)
            self.inbuf += data
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            alive = False
        bodies: list[bytes] = []
        while (body := _take(self.inbuf)) is not None:
            bodies.append(body)
        return bodies, alive

    def _receive(self) -> bytes:
        if self.descriptors is None:
            return self.sock.recv(65536)
        data, descriptors, _, _ = socket.recv_fds(self.sock, 65536, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        for fd in descriptors:
            os.set_inheritable(fd, False)
            self.descriptors.append(fd)
        return data

    def write(self) -> bool:
        """Send what can be sent; False when the peer is gone."""
        try:
            while self.out:
                del self.out[: self.sock.send(self.out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.out.clear()
            return False
        return True

    def write_with(self, packed: bytes, fd: int) -> bool:
        """Send a message with a copy of `fd`; False when it cannot be sent now, and nothing was."""
        if self.out:
            return False
        try:
            sent = socket.send_fds(self.sock, [packed], [fd])
        except OSError:
            return False
        self.out += packed[sent:]
        return True


class ControlChannel:
    """A child's end of the control channel, on its event loop.

    `on_message` gets every message that answers no request; `on_lost` is called once when the supervisor is gone.

        channel = ControlChannel(loop, ctx.control_fd, on_message, on_lost)
        channel.send(Ready())
        await channel.request(ConfigSet(0, {"maxmemory": "1gb"}))     # the id is filled in; raises ControlError
        await channel.ask("stats", [])          # {index of a router: its answer}, for each other one that answers
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_message: Callable[[Down], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._stream = _Stream(socket.socket(fileno=fd), deque())
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: dict[int, asyncio.Future[Down]] = {}
        self._answers: dict[int, list[Answer]] = {}
        self._next_id = 1
        self._closed = False
        loop.add_reader(fd, self._on_readable)

    def send(self, message: Up) -> None:
        """Send `message`, now or as soon as the socket takes it; raises ControlError when it is too long."""
        if self._closed:
            return
        packed = pack(message)
        if len(packed) > MESSAGE_LIMIT:
            raise ControlError(f"a control message of {len(packed)} bytes is too long")
        idle = not self._stream.out
        self._stream.out += packed
        if idle:
            self._stream.write()
            if self._stream.out:
                self._loop.add_writer(self._stream.sock.fileno(), self._on_writable)

    def hand_over(self, message: Up, fd: int) -> None:
        """Send `message` with a copy of `fd`; raises ControlError when that cannot be, and nothing was sent."""
        if self._closed or not self._stream.write_with(pack(message), fd):
            raise ControlError("the supervisor does not listen")
        if self._stream.out:
            self._loop.add_writer(self._stream.sock.fileno(), self._on_writable)

    def take_descriptor(self) -> int:
        """The descriptor that came with a message (`NewListener`), the caller's from here on."""
        assert self._stream.descriptors is not None
        return self._stream.descriptors.popleft()

    async def request(self, message: Request, fd: int = -1) -> Down:
        """Send a request, with a copy of `fd` if there is one, and wait for its answer; raises ControlError with the
        supervisor's reason."""
        answer, _ = await self._exchange(message, fd=fd)
        if isinstance(answer, Ack) and answer.error:
            raise ControlError(answer.error)
        return answer

    async def ask(self, what: str, words: Iterable[bytes]) -> dict[int, bytes]:
        """Ask all other routers; what they answer, by their index. One that does not in time is missing."""
        _, answers = await self._exchange(AskRouters(0, what, list(words)), 2 * ANSWER_SECONDS)
        whole = {answer.router for answer in answers if answer.last}
        return {router: b"".join(part.body for part in answers if part.router == router) for router in whole}

    def answer(self, question: Question, body: bytes) -> None:
        """Answer another router's question."""
        for at in range(0, len(body) or 1, PART_BYTES):
            end = at + PART_BYTES
            self.send(Answer(question.id, body[at:end], end >= len(body)))

    async def _exchange(
        self, message: Request, seconds: float | None = None, fd: int = -1
    ) -> tuple[Down, list[Answer]]:
        """What answers the request, and the routers' Answers before it; after `seconds` it counts as acknowledged."""
        if self._closed:
            raise ControlError("the supervisor is gone")
        message = msgspec.structs.replace(message, id=self._next_id)
        self._next_id += 1
        future: asyncio.Future[Down] = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._settle, Ack(message.id))
        self._waiting[message.id] = future
        answers = self._answers[message.id] = []
        try:
            if fd < 0:
                self.send(message)
            else:
                self.hand_over(message, fd)
            return await future, answers
        finally:
            del self._waiting[message.id], self._answers[message.id]
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Close the channel; requests under way fail. Does not call `on_lost`."""
        if self._closed:
            return
        self._closed = True
        fd = self._stream.sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._stream.sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ControlError("the supervisor is gone"))

    def _on_readable(self) -> None:
        bodies, alive = self._stream.read()
        for body in bodies:
            message = _down_decoder.decode(body)
            if isinstance(message, Answer):
                self._answers.get(message.id, []).append(message)
            elif isinstance(message, Ack | StatusReply) and message.id in self._waiting:
                self._settle(message)
            else:
                self._on_message(message)
            if self._closed:
                return
        if not alive:
            self.close()
            self._on_lost()

    def _settle(self, message: Ack | StatusReply) -> None:
        if not self._waiting[message.id].done():
            self._waiting[message.id].set_result(message)

    def _on_writable(self) -> None:
        self._stream.write()
        if not self._stream.out:
            self._loop.remove_writer(self._stream.sock.fileno())


class Conversation:
    """The supervisor's end of one control connection; its selector calls `on_readable` and `on_writable`.

    `is_child`: it may pass descriptors with what it sends; nobody else's come.
    """

    def __init__(self, sock: socket.socket, *, is_child: bool = False) -> None:
        self._stream = _Stream(sock, deque() if is_child else None)

    def fileno(self) -> int:
        """The descriptor to select on."""
        return self._stream.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether there is something unsent."""
        return bool(self._stream.out)

    @property
    def overflows(self) -> bool:
        """Whether the peer reads so little of what it asked for that nothing more should be kept for it."""
        return len(self._stream.out) > MESSAGE_LIMIT

    def send(self, message: Down) -> bool:
        """Queue and try to send `message`; False when the peer is gone. Raises ControlError when it is too long."""
        packed = pack(message)
        if len(packed) - 4 > MESSAGE_LIMIT:
            raise ControlError(f"a control message of {len(packed)} bytes is too long")
        self._stream.out += packed
        return self._stream.write()

    def send_descriptor(self, message: Down, fd: int) -> bool:
        """Send `message` with a copy of `fd`; False when it cannot be sent now, and nothing was."""
        return self._stream.write_with(pack(message), fd)

    def take_descriptor(self) -> int:
        """The descriptor that came with a message of a child (`Shutdown`), the caller's from here on; -1: none did."""
        return self._stream.descriptors.popleft() if self._stream.descriptors else -1

    def on_readable(self) -> tuple[list[Any], bool]:
        """The messages (`Up`) that came, and whether the peer is still there; one that cannot be read ends it."""
        try:
            bodies, alive = self._stream.read()
            return [_up_decoder.decode(body) for body in bodies], alive
        except (ControlError, msgspec.MsgspecError):
            return [], False

    def on_writable(self) -> bool:
        """Send what is left; False when the peer is gone."""
        return self._stream.write()

    def close(self) -> None:
        """Close the socket, and what came with messages that nobody has looked at."""
        while (fd := self.take_descriptor()) >= 0:
            os.close(fd)
        self._stream.sock.close()

    def abandon(self) -> None:
        """Forget the descriptor without closing it: in a forked child its number may soon be another file's."""
        self._stream.sock.detach()
