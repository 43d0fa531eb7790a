"""Messages between the supervisor and its children, and the channel that carries them.

Owns the vocabulary: what a child is told when it starts (`ChildContext`), what goes down to it (`Down`) and up
from it (`Up`). The same messages and the same framing serve the supervisor's admin socket, which the command line
speaks. Framing: ``u32 length | msgpack``, little-endian, length counting the msgpack bytes.

A child is entered as ``run(ctx)`` of ``kache.router.main`` or ``kache.shard.main``; it finds its listeners in the
context, already bound and listening. `ControlChannel` is the child's end and lives on the child's event loop (this
module imports no event loop: it uses the one it is given). `Conversation` is the supervisor's end: it never blocks,
and is driven by the supervisor's selector.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kache.config import Config
from kache.errors import KacheError

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Ack",
    "ChildContext",
    "ChildStatus",
    "ClusterStatus",
    "ConfigChanged",
    "ConfigRewrite",
    "ConfigSet",
    "ControlChannel",
    "ControlError",
    "Conversation",
    "Down",
    "Drain",
    "Failed",
    "Ping",
    "Pong",
    "Ready",
    "RestartShard",
    "ShardState",
    "Shutdown",
    "StatusReply",
    "StatusRequest",
    "Up",
    "receive",
    "send",
]

Role = Literal["router", "shard"]
State = Literal["starting", "up", "down"]

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one message; far above any real one, so that a stray peer cannot make a process grow."""


class ControlError(KacheError):
    """The peer refused, vanished, or sent what is not a control message."""


class ChildContext(msgspec.Struct, kw_only=True):
    """All that a child is given when it starts. The descriptors are open and the child's own."""

    role: Role
    index: int
    shards: int
    routers: int
    port: int
    config: Config
    anchor_wall_ms: int
    """Unix milliseconds at the instant `anchor_boot_ns`; with it, the one time base of the whole cluster."""
    anchor_boot_ns: int
    """CLOCK_BOOTTIME at that instant (CLOCK_MONOTONIC where there is no such clock)."""
    hash_seed: bytes
    """Sixteen bytes that key the tables' hash, the same for the life of the cluster, so that cursors outlive a restart."""
    boot_id: int
    """Random u64 of this cluster: a link to a stranger's shard is refused."""
    listeners: list[int]
    """Router: the client port's listeners, one per address, shared by all routers. Shard: its Unix socket."""
    shard_paths: list[str]
    """Path of every shard's Unix socket, by index."""
    control_fd: int
    """Stream socket to the supervisor, for `ControlChannel`."""
    death_fd: int
    """Read end of a pipe that ends when the supervisor is gone: then leave at once."""
    run_dir: str
    """The cluster's private directory (0700)."""
    restarts: int = 0
    """How often this child was started before."""
    config_file: str | None = None
    """The TOML file that the cluster was started with."""


class ChildStatus(msgspec.Struct, kw_only=True):
    """One child as the supervisor sees it."""

    role: Role
    index: int
    pid: int
    """0 while it is not running."""
    state: State
    restarts: int
    started_ms: int
    """Unix milliseconds of its last start."""
    reason: str
    """Why it last ended, for one that did; empty otherwise."""


class ClusterStatus(msgspec.Struct, kw_only=True):
    """The answer to `StatusRequest`."""

    version: str
    pid: int
    port: int
    bind: list[str]
    started_ms: int
    now_ms: int
    run_dir: str
    config: dict[str, str]
    children: list[ChildStatus]
    draining: bool = False


class _Message(msgspec.Struct, kw_only=False, tag_field="type"):
    """Base of every message: its tag is the name of its class."""


class Ack(_Message, tag=True):
    """The answer to the request `id`: done, or refused for the reason `error`. Goes both ways."""

    id: int
    error: str = ""


class ConfigChanged(_Message, tag=True):
    """Down: the configuration from now on. A child answers with Ack once it is in force."""

    id: int
    config: Config


class Drain(_Message, tag=True):
    """Down: answer what is in flight, accept nothing new, leave within `seconds`. A second one leaves at once."""

    seconds: float


class ShardState(_Message, tag=True):
    """Down, to routers: what the supervisor knows of a shard; `reason` says why it is down."""

    index: int
    state: State
    reason: str = ""


class Ping(_Message, tag=True):
    """Down: are you alive? Answered with Pong."""

    id: int


class Pong(_Message, tag=True):
    """Up: the answer to Ping."""

    id: int


class Failed(_Message, tag=True):
    """Up: this child ends because of an error, told in one line. Sent by whoever entered the child, not by `run`."""

    reason: str


class Ready(_Message, tag=True):
    """Up: this child serves. A router says so once it accepts clients and its links to the shards are up."""


class ConfigSet(_Message, tag=True):
    """Up: change these live settings (texts by name). Ack comes after every child has acknowledged the change."""

    id: int
    values: dict[str, str]


class ConfigRewrite(_Message, tag=True):
    """Up: write the settings changed at run time into the configuration file."""

    id: int


class RestartShard(_Message, tag=True):
    """Up: drain and start shard `index` again; Ack when it serves. -1 is router 0, -2 router 1, and so on."""

    id: int
    index: int


class Shutdown(_Message, tag=True):
    """Up: drain and end the whole cluster. Ack comes at once, the end of the connection when all is gone."""

    id: int


class StatusRequest(_Message, tag=True):
    """Up: answered with StatusReply."""

    id: int


class StatusReply(_Message, tag=True):
    """Down: the answer to StatusRequest."""

    id: int
    status: ClusterStatus


Down = ConfigChanged | Drain | ShardState | Ping | Ack | StatusReply
Up = Ready | Failed | Pong | Ack | ConfigSet | ConfigRewrite | RestartShard | Shutdown | StatusRequest
Request = ConfigSet | ConfigRewrite | RestartShard | Shutdown | StatusRequest

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
            raise ControlError("the supervisor did not answer in time") from None
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
    """Non-blocking framing over one socket: whole messages out, whole messages in."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.inbuf = bytearray()
        self.out = bytearray()

    def read(self) -> tuple[list[bytes], bool]:
        """The whole messages that have come, and whether the peer is still there."""
        alive = True
        try:
            data = self.sock.recv(65536)
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


class ControlChannel:
    """A child's end of the control channel, on its event loop.

    `on_message` gets every message that answers no request; `on_lost` is called once when the supervisor is gone.

        channel = ControlChannel(loop, ctx.control_fd, on_message, on_lost)
        channel.send(Ready())
        await channel.request(ConfigSet(0, {"maxmemory": "1gb"}))     # the id is filled in; raises ControlError
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_message: Callable[[Down], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._stream = _Stream(socket.socket(fileno=fd))
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: dict[int, asyncio.Future[Down]] = {}
        self._next_id = 1
        self._closed = False
        loop.add_reader(fd, self._on_readable)

    def send(self, message: Up) -> None:
        """Send `message`, now or as soon as the socket takes it."""
        if self._closed:
            return
        idle = not self._stream.out
        self._stream.out += pack(message)
        if idle:
            self._stream.write()
            if self._stream.out:
                self._loop.add_writer(self._stream.sock.fileno(), self._on_writable)

    async def request(self, message: Request) -> Down:
        """Send a request and wait for its answer; raises ControlError with the supervisor's reason."""
        if self._closed:
            raise ControlError("the supervisor is gone")
        message = msgspec.structs.replace(message, id=self._next_id)
        self._next_id += 1
        future: asyncio.Future[Down] = self._loop.create_future()
        self._waiting[message.id] = future
        try:
            self.send(message)
            answer = await future
        finally:
            self._waiting.pop(message.id, None)
        if isinstance(answer, Ack) and answer.error:
            raise ControlError(answer.error)
        return answer

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
            waiting = self._waiting.get(message.id) if isinstance(message, Ack | StatusReply) else None
            if waiting is None:
                self._on_message(message)
            elif not waiting.done():
                waiting.set_result(message)
            if self._closed:
                return
        if not alive:
            self.close()
            self._on_lost()

    def _on_writable(self) -> None:
        self._stream.write()
        if not self._stream.out:
            self._loop.remove_writer(self._stream.sock.fileno())


class Conversation:
    """The supervisor's end of one control connection; its selector calls `on_readable` and `on_writable`."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = _Stream(sock)

    def fileno(self) -> int:
        """The descriptor to select on."""
        return self._stream.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether there is something unsent."""
        return bool(self._stream.out)

    def send(self, message: Down) -> bool:
        """Queue and try to send `message`; False when the peer is gone."""
        self._stream.out += pack(message)
        return self._stream.write()

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
        """Close the socket."""
        self._stream.sock.close()

    def abandon(self) -> None:
        """Forget the descriptor without closing it: in a forked child its number may soon be another file's."""
        self._stream.sock.detach()
