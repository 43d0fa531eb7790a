"""What the supervisor and its children say to one another: the messages, and what a child is told when it starts.

`Down` goes from the supervisor to a child, `Up` from a child to it; `Request` is what is answered. `kache.cluster.control` is the
channel that carries them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kache.config.settings import Config
from kache.slots import SlotRange

__all__ = [
    "Ack",
    "Answer",
    "AskRouters",
    "ChildContext",
    "ChildStatus",
    "ClusterStatus",
    "ConfigChanged",
    "ConfigRewrite",
    "ConfigSet",
    "Down",
    "Drain",
    "Failed",
    "Health",
    "NewListener",
    "Ping",
    "Pong",
    "Question",
    "Ready",
    "Request",
    "RestartShard",
    "Role",
    "ShardState",
    "Shutdown",
    "Slots",
    "State",
    "StatusReply",
    "StatusRequest",
    "Up",
]

Role = Literal["router", "shard"]
State = Literal["starting", "up", "down"]
Health = Literal["starting", "up", "unresponsive", "down"]


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
    slots: list[SlotRange]
    """Which shard owns which slots; only the supervisor changes it (`Slots`)."""
    slot_epoch: int
    """The number of that map; every change has a higher one."""
    control_fd: int
    """Stream socket to the supervisor, for `ControlChannel`."""
    death_fd: int
    """Read end of a pipe that ends when the supervisor is gone: then leave at once."""
    pages: dict[str, int]
    """What this child shares with others (`kache.cluster.pages`): "board", what shards have begun,
    "claims", which of them serves a client; routers also "clients",
    how many each has, and "numbers", those of the slow log's entries."""
    run_dir: str
    """The cluster's private directory (0700)."""
    restarts: int = 0
    """How often this child was started before."""
    config_file: str | None = None
    """The TOML file that the cluster was started with."""

    def descriptors(self) -> list[int]:
        """All that are the child's own."""
        return [self.control_fd, self.death_fd, *self.listeners, *self.pages.values()]


class ChildStatus(msgspec.Struct, kw_only=True):
    """One child as the supervisor sees it."""

    role: Role
    index: int
    pid: int
    """0 while it is not running."""
    state: Health
    restarts: int
    started_ms: int
    """Unix milliseconds of its last start."""
    reason: str
    """Why it last ended, for one that did, or why it counts as unresponsive; empty otherwise."""


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
    slots: list[SlotRange]
    slot_epoch: int
    draining: bool = False
    troubles: list[str] = []
    """What the cluster cannot heal by itself: a file of its directory that cannot be made again, say."""


class _Message(msgspec.Struct, kw_only=False, tag_field="type"):
    """Base of every message: its tag is the name of its class."""


class Ack(_Message, tag=True):
    """The answer to the request `id`: done, or refused for the reason `error`. Goes both ways."""

    id: int
    error: str = ""


class ConfigChanged(_Message, tag=True):
    """Down: the configuration from now on. A child answers with Ack once it is in force, or with why it cannot be: then
    it goes on with the one before."""

    id: int
    config: Config


class Slots(_Message, tag=True):
    """Down: which shard owns which slots from now on. A child answers with Ack once it goes by it."""

    id: int
    epoch: int
    ranges: list[SlotRange]


class Drain(_Message, tag=True):
    """Down: answer what is in flight, accept nothing new, leave within `seconds`. A second one leaves at once."""

    seconds: float


class ShardState(_Message, tag=True):
    """Down, to routers: what the supervisor knows of a shard; `reason` says why it is down."""

    index: int
    state: State
    reason: str = ""


class NewListener(_Message, tag=True):
    """Down, to a shard: its Unix socket was lost and made anew; the descriptor comes with the message."""


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


class AskRouters(_Message, tag=True):
    """Up: ask all other routers. Their Answers come down as they are given, Ack after the last or when time is up."""

    id: int
    what: str
    words: list[bytes]


class Question(_Message, tag=True):
    """Down, to routers: what another one asks; not to be answered or acted on after `until` (time.monotonic())."""

    id: int
    what: str
    words: list[bytes]
    until: float


class Answer(_Message, tag=True):
    """A part of the answer to a question: up from the router asked, then down to the one that asks."""

    id: int
    body: bytes
    last: bool
    router: int = -1
    """Whose answer it is; the supervisor fills it in."""


Down = ConfigChanged | Slots | Drain | ShardState | NewListener | Ping | Ack | StatusReply | Question | Answer
Up = (
    Ready
    | Failed
    | Pong
    | Ack
    | ConfigSet
    | ConfigRewrite
    | RestartShard
    | Shutdown
    | StatusRequest
    | AskRouters
    | Answer
)
Request = ConfigSet | ConfigRewrite | RestartShard | Shutdown | StatusRequest | AskRouters
