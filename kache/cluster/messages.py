"""What the supervisor and its children say to one another: the messages, and what a child is told when it starts.

`Down` goes from the supervisor to a child, `Up` from a child to it; `Request` is what is answered. `kache.cluster.control` is the
channel that carries them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kache.acl.record import UserRecord
from kache.cluster.transactions import Shares
from kache.config.settings import Config
from kache.slots import SlotRange

__all__ = [
    "Ack",
    "AclChange",
    "AclFile",
    "Answer",
    "AskRouters",
    "CancelDump",
    "ChildContext",
    "ChildStatus",
    "ClusterStatus",
    "ConfigChanged",
    "ConfigRewrite",
    "ConfigSet",
    "DataPlace",
    "Down",
    "Drain",
    "DumpShard",
    "Dumped",
    "Failed",
    "FunctionChange",
    "Health",
    "Kept",
    "LastSave",
    "LibrariesAre",
    "Library",
    "Loading",
    "Module",
    "ModuleCommand",
    "ModuleList",
    "ModuleLoad",
    "ModuleStatus",
    "ModuleUnload",
    "ModulesAre",
    "ModulesReply",
    "NewListener",
    "Ping",
    "Pong",
    "Question",
    "Ready",
    "Recorded",
    "Reload",
    "Reports",
    "Request",
    "Resolved",
    "RestartShard",
    "Role",
    "Save",
    "SaveRefused",
    "ScriptChange",
    "ScriptsAre",
    "SetStage",
    "ShardState",
    "Shutdown",
    "Slots",
    "Stage",
    "StageIs",
    "State",
    "StatusReply",
    "StatusRequest",
    "TlsCommit",
    "TlsIs",
    "TlsPrepare",
    "Up",
    "UsersChanged",
]

Role = Literal["router", "shard", "metrics"]
State = Literal["starting", "up", "down"]
Health = Literal["starting", "loading", "up", "unresponsive", "down"]


class DataPlace(msgspec.Struct, frozen=True):
    """Where a shard keeps its files, the id (16 bytes) of the cluster that they belong to, and the shard's slots there: pairs
    (first, last)."""

    directory: str
    cluster: bytes
    slots: tuple[tuple[int, int], ...]
    needed: tuple[str, ...] = ()
    """Files of the whole data directory without which nothing that a shard keeps would be found again."""


class Stage(msgspec.Struct, kw_only=True, frozen=True):
    """What a test has staged (`kache.cluster.simulation`); children by name ("shard 2")."""

    ahead_ms: int = 0
    """By how much the time of the data is ahead of the cluster's."""
    stands_at_ms: int = 0
    """Unix milliseconds at which it stands still; 0: it runs."""
    delay_ms: dict[str, int] = {}
    """Shards whose replies leave so much later."""
    write_refusals: dict[str, str] = {}
    """Shards that execute no writes, and the error they answer with."""
    stopped: tuple[str, ...] = ()
    """Children that do nothing (SIGSTOP)."""
    down: tuple[str, ...] = ()
    """Children that are not started again."""


class ModuleCommand(msgspec.Struct, frozen=True):
    """A command of a module: its number on the link, and its row (kache.commands.Row) as msgpack."""

    name: str
    number: int
    row: bytes


class Module(msgspec.Struct, frozen=True):
    """A module, or one version of it: each has a serial of its own. `source` is empty for those who do not execute it."""

    name: str
    serial: int
    path: str
    source: str
    commands: list[ModuleCommand]
    loaded_ms: int


class Library(msgspec.Struct, frozen=True):
    """A library of functions: its name, its text with the line that says so, and the number of the time it was loaded, by
    which shards know whether they have it; the supervisor's."""

    name: str
    code: bytes
    serial: int = 0


class ModuleStatus(msgspec.Struct, frozen=True):
    """A module for `kache module list`; the time is unix milliseconds."""

    name: str
    path: str
    loaded_ms: int
    commands: list[str]


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
    """Router: the client port's listeners, one per address, shared by all routers. Shard: its Unix socket. Metrics: those of
    the metrics port."""
    tls_listeners: list[int] = []
    """Router: those of the port that speaks TLS."""
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
    """What this child shares with others (`kache.cluster.pages`): "board", what shards have begun, "claims", which of them
    serves a client; routers also "clients", how many each has, "numbers", those of the slow log's entries, "pauses" and "monitors",
    "rounds", what is being dumped, "addresses" and "users", what counts for limits;
    shards also "budget", what each uses of the memory, and "waker…", one for each shard in their order."""
    run_dir: str
    """The cluster's private directory (0700)."""
    data: DataPlace | None = None
    """Of a shard: where its files are; None while the cluster keeps none."""
    restarts: int = 0
    """How often this child was started before."""
    config_file: str | None = None
    """The TOML file that the cluster was started with."""
    modules: ModulesAre | None = None
    """The commands in Python of the cluster, for routers and shards; None: there are none."""
    libraries: list[Library] = []
    """Of a shard: the libraries of functions."""
    scripts: list[bytes] = []
    """Of a shard: texts of the scripts that were loaded."""
    stage: Stage | None = None
    """What a test has staged; None in a cluster that was not started for tests."""
    users: list[UserRecord] | None = None
    """All users; None: the default one, with the password of the configuration."""
    acl_epoch: int = 0
    """The number of the last change of users."""
    own_password: str = ""
    """Router and metrics: what the user of the metrics process proves itself by (kache.acl.record.METRICS)."""

    def descriptors(self) -> list[int]:
        """All that are the child's own."""
        return [self.control_fd, self.death_fd, *self.listeners, *self.tls_listeners, *self.pages.values()]


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
    """Why it last ended, for one that did, why it counts as unresponsive, how far it has loaded, or what is wrong with its
    log; empty otherwise."""
    kept: Kept | None = None
    """Of a shard that keeps something on disk."""


class ClusterStatus(msgspec.Struct, kw_only=True):
    """The answer to `StatusRequest`."""

    version: str
    pid: int
    port: int
    """Of the plain port; 0: there is none."""
    bind: list[str]
    started_ms: int
    now_ms: int
    run_dir: str
    config: dict[str, str]
    children: list[ChildStatus]
    slots: list[SlotRange]
    slot_epoch: int
    draining: bool = False
    tls_port: int = 0
    tls_serial: str = ""
    """Of the certificate that is served, in hexadecimal digits; empty without TLS."""
    tls_expires: int = 0
    """Unix seconds."""
    troubles: list[str] = []
    """What the cluster cannot heal by itself: a file of its directory that cannot be made again, say."""


class _Message(msgspec.Struct, kw_only=False, tag_field="type"):
    """Base of every message: its tag is the name of its class."""


class Ack(_Message, tag=True):
    """The answer to the request `id`: done, or refused for the reason `error`. Goes both ways."""

    id: int
    error: str = ""
    count: int = 0
    """Of users that were deleted; for Save, 1 where it concerns what waits for what is under way."""


class ConfigChanged(_Message, tag=True):
    """Down: the configuration from now on. A child answers with Ack once it is in force, or with why it cannot be: then
    it goes on with the one before."""

    id: int
    config: Config
    data: DataPlace | None = None
    """Of a shard, where its files are from now on: the directory may have been opened for this change."""


class Slots(_Message, tag=True):
    """Down: which shard owns which slots from now on. A child answers with Ack once it goes by it."""

    id: int
    epoch: int
    ranges: list[SlotRange]


class UsersChanged(_Message, tag=True):
    """Down: these users are so from now on, those of the names in `removed` are gone. A child answers with Ack once nothing is
    executed by the rights of before."""

    id: int
    epoch: int
    records: list[UserRecord]
    removed: list[bytes]


class ModulesAre(_Message, tag=True):
    """Down, to shards and routers: the modules from now on, of which later ones win where a number is in two. A child answers
    with Ack once it goes by it, or with why it cannot: then it has what it had."""

    id: int
    epoch: int
    modules: list[Module]


class LibrariesAre(_Message, tag=True):
    """Down, to shards: the libraries of functions from now on. A shard answers with Ack once it goes by it, or with why it
    cannot: then it has what it had. `adds`: somebody loads one, which is refused where memory is full."""

    id: int
    libraries: list[Library]
    adds: bool = False


class ScriptsAre(_Message, tag=True):
    """Down, to shards: these scripts are known from now on, beside the others or (`flush`) instead of them. A shard answers
    with Ack once it goes by it, or with why one cannot be compiled."""

    id: int
    texts: list[bytes]
    flush: bool = False


class Drain(_Message, tag=True):
    """Down: answer what is in flight, accept nothing new, leave within `seconds`. A second one leaves at once.

    `save`, for shards: whether what is held is saved before; None: if the settings say so."""

    seconds: float
    save: bool | None = None


class DumpShard(_Message, tag=True):
    """Down, to a shard: make a new base of all it holds. Answered with Dumped when it counts, or with why it does not.

    `urgent`: without rest between the slices."""

    id: int
    urgent: bool


class LastSave(_Message, tag=True):
    """Down, to a shard: it is to end. Have on disk what should outlive it: a snapshot if `save` (None: if the settings
    say so), and the log up to here. Answered with Dumped; the shard goes on, since the cluster may, too."""

    id: int
    save: bool | None = None


class CancelDump(_Message, tag=True):
    """Down, to a shard: give up the dump that is under way."""


class SaveRefused(_Message, tag=True):
    """Down, to shards that keep nothing: somebody wanted it kept, and `reason` says why it cannot be."""

    reason: str


class Dumped(_Message, tag=True):
    """Up: the answer to DumpShard, and to LastSave."""

    id: int
    error: str = ""


class ShardState(_Message, tag=True):
    """Down, to routers: what the supervisor knows of a shard; `reason` says why it is down.

    With an `id` it is acknowledged, once the router is connected to the process `pid` of it.
    """

    index: int
    state: State
    reason: str = ""
    pid: int = 0
    id: int = 0


class NewListener(_Message, tag=True):
    """Down, to a shard: its Unix socket was lost and made anew; the descriptor comes with the message."""


class Ping(_Message, tag=True):
    """Down: are you alive? Answered with Pong."""

    id: int


class Pong(_Message, tag=True):
    """Up: the answer to Ping."""

    id: int


class Failed(_Message, tag=True):
    """Up: this child ends because of an error, told in one line. Sent by whoever entered the child, not by `run`.
    `lasts`: it would end in the same way again (`KacheError.lasts`)."""

    reason: str
    lasts: bool = False


class TlsPrepare(_Message, tag=True):
    """Down: read the files of the certificate again. Acknowledged when they can be used, or with why not; what is served
    stays as it is."""

    id: int


class TlsCommit(_Message, tag=True):
    """Down: serve new connections with what was prepared last; existing ones keep what they have."""

    id: int


class TlsIs(_Message, tag=True):
    """Up: the certificate that a child serves from now on (hexadecimal digits, Unix seconds), or why it serves no TLS."""

    serial: str
    expires: int
    error: str = ""


class Ready(_Message, tag=True):
    """Up: this child serves. A router says so once it accepts clients and its links to the shards are up."""


class Reports(_Message, tag=True):
    """Up, from a shard before it loads: the transactions that its log has shares of, and the number of the last decision
    that its files say, and that of its newest file. Answered with Resolved."""

    shares: Shares
    number: int = 0
    newest: int = 0


class Resolved(_Message, tag=True):
    """Down: what of its log a shard leaves out (`kache.cluster.transactions.Decision`).

    `final`: it was decided for the whole cluster, under `number` (0: there was nothing to decide); its files are to say so from
    then on. Else the others live, and what its log has is as it would be had it not ended.
    """

    skip: list[int]
    cut_at: int
    half: list[int]
    number: int = 0
    final: bool = True


class Recorded(_Message, tag=True):
    """Up: the files of this shard say what Resolved has told under this number."""

    number: int


class Kept(_Message, tag=True):
    """Up, every second from a shard that keeps something: changes since its last base, bytes of its logs that the base does
    not have yet, bytes of the base, how many logs there are; `state` and `error` as its log is (ok, slow, stalled, full,
    broken, off); `dump`: how far the one is that is under way, for people."""

    changes: int
    log: int
    base: int
    logs: int
    state: str = "ok"
    error: str = ""
    dump: str = ""


class Loading(_Message, tag=True):
    """Up, every now and then from a shard that loads: bytes read of all there are, keys so far, seconds since it began."""

    done: int
    total: int
    keys: int
    seconds: float


class ConfigSet(_Message, tag=True):
    """Up: change these live settings (texts by name). Ack comes after every child has acknowledged the change."""

    id: int
    values: dict[str, str]


class AclChange(_Message, tag=True):
    """Up: apply these rules to users (or make them), and delete others. Ack comes once every process goes by it."""

    id: int
    actor: bytes
    """The user who asks, for the log."""
    changes: list[tuple[bytes, list[bytes]]]
    deletions: list[bytes]


class AclFile(_Message, tag=True):
    """Up: read the users from their file (`what`: load), or write them there (save). Ack as for AclChange."""

    id: int
    what: str


class ConfigRewrite(_Message, tag=True):
    """Up: write the settings changed at run time into the configuration file."""

    id: int


class Reload(_Message, tag=True):
    """Up: read the configuration and the files of the certificate again. Ack with what could not be taken in."""

    id: int


class RestartShard(_Message, tag=True):
    """Up: drain and start shard `index` again; Ack when it serves. -1 is router 0, -2 router 1, and so on."""

    id: int
    index: int


class SetStage(_Message, tag=True):
    """Up: make this the stage of a test. Ack comes once every child that can has followed."""

    id: int
    stage: Stage


class StageIs(_Message, tag=True):
    """Down: the stage from now on. Acknowledged once it holds, and what has expired by it is removed."""

    id: int
    stage: Stage


class Save(_Message, tag=True):
    """Up: have every shard make a new base, one after the other; `what`: "save" (Ack at the end), "bgsave",
    "bgrewriteaof" (Ack at the beginning, also where it is put behind a save), "schedule" (a save that is put behind a rewrite),
    "cancel" (of saves)."""

    id: int
    what: str


class Shutdown(_Message, tag=True):
    """Up: drain and end the whole cluster. Ack comes when everything that is kept is on disk, the end of the connection when all
    is gone. A router passes the descriptor of the client who asks with it, for the same.

    `save`: whether shards save what they hold before; None: if the settings say so. `now`: nobody is waited for. Ack with an
    error: not everything can be kept, and the cluster goes on; with `force` it has ended all the same. `refusal` is what the client
    is told if that turns out when its router has gone; nothing if others than a router cannot say anything to it."""

    id: int
    save: bool | None = None
    now: bool = False
    force: bool = False
    refusal: bytes = b""


class ModuleLoad(_Message, tag=True):
    """Up, over the admin socket: load this text of the file `path`, in the place of the module of its name if `replace`."""

    id: int
    path: str
    source: str
    replace: bool = False


class ModuleUnload(_Message, tag=True):
    """Up, over the admin socket: the commands of this module are unknown from now on."""

    id: int
    name: str


class ModuleList(_Message, tag=True):
    """Up, over the admin socket: answered with ModulesReply."""

    id: int


class ModulesReply(_Message, tag=True):
    """Down: the answer to ModuleList."""

    id: int
    modules: list[ModuleStatus]


class FunctionChange(_Message, tag=True):
    """Up: change the libraries of functions. Ack comes once every shard goes by it, or with the error for the client.

    `what`: "load" adds the one of `libraries`, "replace" in the place of one of its name; "append" and "overwrite" do so
    with several, "anew" has those and no others; "delete" removes that of `name`."""

    id: int
    what: str
    libraries: list[Library] = []
    name: str = ""


class ScriptChange(_Message, tag=True):
    """Up: have every shard know this script from now on, or (None) no script at all. Ack as for FunctionChange."""

    id: int
    text: bytes | None = None


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


Down = (
    ConfigChanged
    | UsersChanged
    | Slots
    | ModulesAre
    | ModulesReply
    | LibrariesAre
    | ScriptsAre
    | Drain
    | DumpShard
    | LastSave
    | CancelDump
    | SaveRefused
    | ShardState
    | NewListener
    | Ping
    | Ack
    | StatusReply
    | Question
    | Answer
    | Resolved
    | StageIs
    | TlsCommit
    | TlsPrepare
)
Up = (
    Ready
    | Failed
    | Pong
    | Reports
    | Recorded
    | Loading
    | Kept
    | Dumped
    | Ack
    | ConfigSet
    | ConfigRewrite
    | AclChange
    | AclFile
    | Reload
    | RestartShard
    | SetStage
    | Save
    | Shutdown
    | ModuleLoad
    | ModuleUnload
    | ModuleList
    | FunctionChange
    | ScriptChange
    | StatusRequest
    | AskRouters
    | Answer
    | TlsIs
)
Request = (
    ConfigSet
    | ConfigRewrite
    | Reload
    | AclChange
    | AclFile
    | FunctionChange
    | ScriptChange
    | RestartShard
    | SetStage
    | Save
    | Shutdown
    | StatusRequest
    | AskRouters
)
