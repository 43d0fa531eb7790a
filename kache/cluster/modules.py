"""The modules of a cluster, as the supervisor keeps them: commands in Python, the same in every shard, known to every router.

    load ─► a process tries the file ─► numbers ─► shards execute it ─► routers know its names ─► it is there
                     │                                │                      │
                     └─ its error                     └──── one cannot: everybody goes back to what was before

The supervisor imports no module, and no row: it keeps the text that was tried, and numbers for its commands, which go
upwards for the life of the cluster. A command whose row is the same in a new version keeps its number; no other is ever
used twice, so that a router which is behind can do no harm. Shards come first when something is added, routers when
something is taken away. Every state that children are told has an epoch, which they compare when they meet. A child that is
started meanwhile has what its kind was told last.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child, signal_name
from kache.errors import KacheError

__all__ = ["MOST_SOURCE_BYTES", "Modules", "read_source"]

PROBE_SECONDS = 15.0
"""How long trying a file may take, its imports included, and a shard for executing it."""
MOST_SOURCE_BYTES = 1024 * 1024
MOST_BYTES = 8 * MOST_SOURCE_BYTES
"""Of all modules together: they travel in one message."""
MOST_NUMBERS = 0x8000
"""Numbers that fit into a frame of the link, beside how the client wrote the name."""

Answer = Callable[[str], None]
_Steps = list[tuple[messages.Role, list[messages.Module]]]


class _Request(msgspec.Struct):
    path: str
    source: str
    seconds: int


class _Tried(msgspec.Struct):
    """What the probe answers (`kache.module.probe`)."""

    error: str = ""
    rows: dict[str, bytes] = {}
    built_in: int = 0


def read_source(path: str) -> str:
    """The text of a file of Python. Raises KacheError with what is wrong with it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_SOURCE_BYTES + 1)
        if len(data) > MOST_SOURCE_BYTES:
            raise KacheError(f"the module {path} has more than {MOST_SOURCE_BYTES} bytes")
        return importlib.util.decode_source(data)
    except OSError as error:
        raise KacheError(f"the module {path} cannot be read: {error.strerror}") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise KacheError(f"the module {path} is no text of Python: {error}") from None


@dataclass(slots=True)
class _Probe:
    """One process that tries a file; what it answers comes over `reader`."""

    process: subprocess.Popen[bytes]
    reader: int
    until: float
    answer: Callable[[_Tried], None]
    data: bytearray = field(default_factory=bytearray)
    late: bool = False

    def read(self) -> bool:
        """Whether there is more to come."""
        data = os.read(self.reader, 65536)
        self.data += data
        return bool(data)

    def outcome(self) -> _Tried:
        """What it has answered, or how it ended; to be called when it has nothing more to say."""
        os.close(self.reader)
        self.process.kill()  # whatever is left of it
        code = self.process.wait()
        if self.late:
            return _Tried(f"it did not come to an end within {PROBE_SECONDS:g} s")
        try:
            return msgspec.msgpack.decode(bytes(self.data), type=_Tried)
        except msgspec.MsgspecError:
            how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with status {code}"
            return _Tried(f"the process that tried it {how}")


def _started(request: _Request, answer: Callable[[_Tried], None]) -> _Probe:
    """Raises OSError when the system starts nothing now."""
    reader, writer = os.pipe()
    try:
        with tempfile.TemporaryFile() as given:
            given.write(msgspec.msgpack.encode(request))
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kache.module.probe", str(writer)], stdin=given, pass_fds=(writer,)
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return _Probe(process, reader, time.monotonic() + PROBE_SECONDS, answer)


class Modules:
    """`send` sends a child a message. One change at a time; the others wait for their turn."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        selector: selectors.BaseSelector,
        send: Callable[[Child, messages.Down], None],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._selector = selector
        self._send = send
        self._modules: list[messages.Module] = []
        self._told: dict[str, tuple[int, list[messages.Module]]] = {"shard": (0, []), "router": (0, [])}
        self._epoch = self._last_number = self._serial = 0
        self._waiting: deque[tuple[Callable[[Answer], None], Answer]] = deque()
        self._busy = False
        self._probe: _Probe | None = None

    # What there is ---------------------------------------------------------------------------------------------

    @property
    def listed(self) -> list[messages.ModuleStatus]:
        """Every module with its commands, in the order in which they were loaded."""
        return [
            messages.ModuleStatus(each.name, each.path, each.loaded_ms, sorted(c.name for c in each.commands))
            for each in self._modules
        ]

    def of_child(self, role: messages.Role) -> messages.ModulesAre | None:
        """What a child of that kind begins with; None: nothing."""
        epoch, modules = self._told.get(role, (0, []))
        return messages.ModulesAre(0, epoch, self._for(role, modules)) if epoch else None

    # Changes ---------------------------------------------------------------------------------------------------

    def start(self, paths: Sequence[str]) -> None:
        """Load these files, before there are children. Raises KacheError, naming the file that is no module."""
        for path in paths:
            tried: list[_Tried] = []
            name, source = _name_of(path), read_source(path)
            try:
                probe = _started(_Request(path, source, int(PROBE_SECONDS)), tried.append)
            except OSError as error:
                raise KacheError(f"the module {path} cannot be tried: {error.strerror}") from None
            with selectors.DefaultSelector() as selector:
                selector.register(probe.reader, selectors.EVENT_READ)
                while True:
                    ready = selector.select(max(probe.until - time.monotonic(), 0))
                    probe.late = not ready
                    if not ready or not probe.read():
                        break
            try:
                self._modules = [*self._modules, self._made(name, path, source, probe.outcome(), False)]
            except KacheError as error:
                raise KacheError(f"the module {path} cannot be loaded: {error}") from None
        if self._modules:
            self._epoch = 1
            self._told = {"shard": (1, self._modules), "router": (1, self._modules)}

    def load(self, path: str, source: str, replace: bool, answer: Answer) -> None:
        """Load a file's text, or `replace` the module of that name; `answer` is told "" or what went wrong, in the end."""
        self._ask(functools.partial(self._load, path, source, replace), answer)

    def unload(self, name: str, answer: Answer) -> None:
        """Its commands are unknown from then on."""
        self._ask(functools.partial(self._unload, _name_of(name)), answer)

    def _ask(self, change: Callable[[Answer], None], answer: Answer) -> None:
        self._waiting.append((change, answer))
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and not self._busy:
            change, answer = self._waiting.popleft()
            self._busy = True
            try:
                change(functools.partial(self._end, answer))
            except KacheError as error:
                self._end(answer, str(error))

    def _end(self, answer: Answer, error: str) -> None:
        self._busy = False
        answer(error)
        self._go_on()

    # Loading ---------------------------------------------------------------------------------------------------

    def _load(self, path: str, source: str, replace: bool, answer: Answer) -> None:
        name = _name_of(path)
        if self._named(name) is not None and not replace:
            raise KacheError(f"the module {name} is loaded already; --replace loads it in its place")
        if len(source.encode("utf-8", "replace")) > MOST_SOURCE_BYTES:
            raise KacheError(f"the module {name} has more than {MOST_SOURCE_BYTES} bytes")
        request = _Request(path, source, int(PROBE_SECONDS))
        try:
            self._probe = _started(request, lambda tried: self._on_tried(name, path, source, tried, answer))
        except OSError as error:
            raise KacheError(f"the module {name} cannot be tried: {error.strerror}") from None
        self._selector.register(self._probe.reader, selectors.EVENT_READ, self._on_probe)

    def _on_probe(self, _mask: int) -> None:
        probe = self._probe
        if probe is not None and not probe.read():
            self._over(probe)

    def _over(self, probe: _Probe) -> None:
        self._selector.unregister(probe.reader)
        self._probe = None
        probe.answer(probe.outcome())

    def expire(self, now: float) -> None:
        """End a file that does not come to an end."""
        if self._probe is not None and now >= self._probe.until:
            self._probe.late = True
            self._over(self._probe)

    def deadlines(self) -> list[float]:
        """When `expire` has something to do."""
        return [] if self._probe is None else [self._probe.until]

    def close(self) -> None:
        """The cluster ends: nothing is tried any more."""
        if self._probe is not None:
            self._selector.unregister(self._probe.reader)
            self._probe.outcome()
            self._probe = None

    def _on_tried(self, name: str, path: str, source: str, tried: _Tried, answer: Answer) -> None:
        before = self._named(name)
        try:
            made = self._made(name, path, source, tried, before is not None)
        except KacheError as error:
            answer(f"the module {name} was not loaded: {error}")
            return
        wanted = [*(each for each in self._modules if each is not before), made]
        # Frames with the numbers of the version before are on their way until the routers know the new ones.
        both = wanted if before is None else [*self._modules, made]
        steps: _Steps = [("shard", both), ("router", wanted)]
        if before is not None:
            steps.append(("shard", wanted))
        self._carry_out(steps, wanted, f"the module {name} was not loaded", answer)

    def _made(self, name: str, path: str, source: str, tried: _Tried, replaces: bool) -> messages.Module:
        """The module with numbers for its commands. Raises KacheError for what cannot be loaded beside the others."""
        if tried.error:
            raise KacheError(tried.error)
        if not replaces and self._named(name) is not None:
            raise KacheError(f"there is another module {name}")
        others = [each for each in self._modules if each.name != name]
        for each in others:
            taken = sorted(tried.rows.keys() & {command.name for command in each.commands})
            if taken:
                raise KacheError(f"the command {taken[0]} is in the module {each.name} already")
        if sum(len(each.source.encode("utf-8", "replace")) for each in others) + len(source) > MOST_BYTES:
            raise KacheError(f"all modules together may have {MOST_BYTES} bytes")
        before = self._named(name)
        known = {} if before is None else {c.name: c for c in before.commands}
        first = max(self._last_number + 1, tried.built_in)
        commands = []
        for command, row in tried.rows.items():
            same = known.get(command)
            if same is not None and same.row == row:
                commands.append(same)
                continue
            if first >= MOST_NUMBERS:
                raise KacheError("this cluster has no numbers left for commands of modules; one that is restarted has")
            commands.append(messages.ModuleCommand(command, first, row))
            self._last_number = first
            first += 1
        self._serial += 1
        return messages.Module(name, self._serial, path, source, commands, time.time_ns() // 1_000_000)

    def _unload(self, name: str, answer: Answer) -> None:
        if self._named(name) is None:
            raise KacheError(f"there is no module {name}")
        wanted = [each for each in self._modules if each.name != name]
        self._carry_out([("router", wanted), ("shard", wanted)], wanted, f"the module {name} was not unloaded", answer)

    # Telling ---------------------------------------------------------------------------------------------------

    def _carry_out(
        self,
        steps: _Steps,
        wanted: list[messages.Module],
        failed: str,
        answer: Answer,
    ) -> None:
        """One step after the other, each when all have acknowledged the one before; all of them, or none."""
        if not steps:
            self._modules = wanted
            answer("")
            return
        (role, modules), *rest = steps

        def done(late: str) -> None:
            if late:
                self._take_back()
                answer(f"{failed}, since {late.partition(';')[0]}")
            else:
                self._carry_out(rest, wanted, failed, answer)

        self._epoch += 1
        self._tell(role, modules, done)

    def _take_back(self) -> None:
        self._epoch += 1
        self._tell("router", self._modules, lambda _late: None)
        self._tell("shard", self._modules, lambda _late: None)

    def _tell(self, role: messages.Role, modules: list[messages.Module], answer: Answer) -> None:
        number, epoch = self._acknowledgements.next_id(), self._epoch
        self._told[role] = (epoch, modules)
        told = [child for child in self._children if child.role == role and child.conversation is not None]
        for child in told:
            self._send(child, messages.ModulesAre(number, epoch, self._for(role, modules)))
        names = [child.name for child in told]
        self._acknowledgements.begin(number, names, time.monotonic(), answer, PROBE_SECONDS)

    @staticmethod
    def _for(role: messages.Role, modules: list[messages.Module]) -> list[messages.Module]:
        """Only shards execute them."""
        return modules if role == "shard" else [msgspec.structs.replace(each, source="") for each in modules]

    def _named(self, name: str) -> messages.Module | None:
        return next((each for each in self._modules if each.name == name), None)


def _name_of(path: str) -> str:
    return os.path.basename(path).removesuffix(".py")
