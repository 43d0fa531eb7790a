"""The modules of a shard: their files executed, their functions behind rows of the table, and the time they may take.

`take` follows what the supervisor says (`kache.cluster.messages.ModulesAre`): a version that is not there yet is executed
beside the event loop, and between two ticks all commands change at once. A version that another one has replaced stays for
as long as the supervisor names it, since frames with its numbers are on their way.

The functions run where handlers run, and change data through the same execution point, so that whatever is promised of
commands holds for them. Two things are different: an exception is the author's (`ERR name: …`, its traceback in the log),
and they may not run for longer than `module-time-limit-ms`.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from kache.acl.catalogue import CATALOGUE
from kache.acl.rights import Users
from kache.cluster.messages import Module
from kache.commands import Row
from kache.errors import CommandError
from kache.module.declare import Declaration
from kache.module.rows import known_row, rows_of, shape_of
from kache.module.source import ModuleError, execute

from ..engine.engine import Context, Executor, Program, take_commands
from .calls import Inside, checked_reply
from .watchdog import TooLong, Watchdog

__all__ = ["Modules"]

Function = Callable[..., Any]


class Modules:
    """The modules of one shard. `seed` is that of their chance; None: the system's."""

    def __init__(self, shard: Executor, seed: int | None = None) -> None:
        self._shard = shard
        self.watchdog = Watchdog(shard)
        self.draw_anew(seed)
        self._versions: dict[int, dict[str, Function]] = {}
        """By the serial of a version: a handler for each of its commands."""
        self.epoch = 0
        self.borrowing = Borrowing()
        """Commands that may have keys of other shards."""
        self.users: Users | None = None
        """Whose rules may name the commands; None: rules and rights are somebody else's."""

    def draw_anew(self, seed: int | None = None) -> None:
        """What commands draw follows from this seed, or from nothing that anybody knows."""
        self._chance = random.Random(int.from_bytes(os.urandom(16), "little") if seed is None else seed)

    def unknown(self, modules: Sequence[Module]) -> list[Module]:
        """Those that have to be executed before `take`."""
        return [each for each in modules if each.serial not in self._versions]

    def execute(self, module: Module) -> dict[str, Function]:
        """What `take` needs of one; it may take long, and is nothing that the shard sees. Raises ModuleError."""
        try:
            declared = rows_of(execute(module.name, module.path, module.source))
        except ModuleError as error:
            raise ModuleError(f"{module.name}: {error}") from None
        handlers = {}
        for command in module.commands:
            if command.name not in declared:
                raise ModuleError(
                    f"{module.name}: it does not declare {command.name} here, as it did when it was tried"
                )
            row, declaration = declared[command.name]
            handlers[command.name] = self._handler(row, declaration)
        return handlers

    def refuse(self, module: Module, reason: str) -> dict[str, Function]:
        """Handlers for a module that was loaded once and cannot be now, in a shard that was started again."""
        text = f"ERR the module {module.name} cannot be loaded in this shard: {reason}"

        def refused(context: Context, *args: bytes, program: Program | None = None) -> Any:
            raise CommandError(text)

        return {command.name: refused for command in module.commands}

    def take(self, epoch: int, modules: Sequence[Module], executed: dict[int, dict[str, Function]]) -> None:
        """These are the modules from here on; `executed` has those that were unknown, by their serials."""
        versions = {each.serial: executed.get(each.serial) or self._versions[each.serial] for each in modules}
        wanted: dict[int, tuple[Row, Function]] = {}
        for each in modules:
            for command in each.commands:
                wanted[command.number] = (known_row(command.row, command.number), versions[each.serial][command.name])
        take_commands(self._shard, wanted, _gone)
        self.borrowing.commands = {row.name: (row, handler) for row, handler in wanted.values() if row.route == "move"}
        if self.users is not None:
            CATALOGUE.take_modules(row for row, _ in wanted.values())
            self.users.compile_again()
        if versions and not self._versions:
            # What there is lives on: only what functions leave behind is looked at (`collect`).
            gc.freeze()
        self._versions = versions
        self.epoch = epoch

    def collect(self) -> None:
        """Once a second: objects of functions that refer to one another. Nobody else has any, and the collector is off."""
        if self._versions:
            gc.collect(0)

    def _handler(self, row: Row, declared: Declaration) -> Function:
        """What the execution point calls."""
        function, name, chance, watchdog = declared.function, row.name, self._chance, self.watchdog
        most = shape_of(declared).most
        reads_only = not row.is_write

        def handle(context: Context, *args: bytes, program: Program | None = None) -> Any:
            if most is not None and len(args) > most:
                raise CommandError(f"ERR wrong number of arguments for '{name}' command")
            outermost = watchdog.left == 0
            if program is None:
                program = Program(context, read_only=reads_only)
            inside = Inside(program, watchdog, chance)
            if outermost:
                watchdog.begin(name)
            try:
                with program:
                    reply = function(inside, *args)
            except TooLong:
                raise CommandError(
                    f"ERR {name}: it took longer than module-time-limit-ms allows, and was ended; it had changed nothing"
                ) from None
            except Exception:
                raise
            except BaseException as error:  # sys.exit() ends no shard
                raise CommandError(f"ERR {name}: {type(error).__name__}: {error}") from error
            finally:
                if outermost:
                    watchdog.left = 0
                inside.end()
            return reply if type(reply) in _PLAIN else checked_reply(reply)

        return handle


class Borrowing:
    """The commands that their router runs with keys of other shards (scripting/lent.py)."""

    def __init__(self) -> None:
        self.commands: dict[str, tuple[Row, Function]] = {}

    def _found(self, name: bytes) -> tuple[Row, Function]:
        found = self.commands.get(name.decode())
        if found is None:
            raise CommandError(f"ERR unknown command '{name.decode()}': its module was unloaded")
        return found

    def program(
        self,
        ctx: Context,
        name: bytes,
        *,
        read_only: bool = False,
        lent: set[bytes] | None = None,
        publishes: bool = True,
    ) -> Program:
        """What it will run as."""
        row, _ = self._found(name)
        return Program(ctx, read_only=read_only or not row.is_write, lent=lent, publishes=publishes)

    def run_program(
        self, ctx: Context, program: Program, name: bytes, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> Any:
        """Its reply; CommandError. Its keys are among `args`."""
        return self._found(name)[1](ctx, *args, program=program)


_PLAIN: Final = frozenset((int, bytes, bool, type(None), float, str))


def _gone(row: Row | None) -> Function:
    name = "it" if row is None or row.name == "unloaded" else f"'{row.name}'"

    def gone(context: Context, *args: bytes) -> Any:
        raise CommandError(f"ERR unknown command {name}: its module was unloaded")

    return gone
