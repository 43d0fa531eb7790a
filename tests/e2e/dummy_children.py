"""The real command line and supervisor over children that only obey: what is tested is the supervisor alone.

Run as a program in place of ``kache``. A dummy router answers lines: PING, DIE, SET <maxmemory>, ENV, NEVER, and APART,
behind which it does not say that it is connected to a shard until TOGETHER; the variable DUMMY_BROKEN names shards that
cannot start, DUMMY_MOST a shard's largest maxmemory.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import types

from kache.cluster.control import ControlChannel, ControlError
from kache.cluster.messages import (
    Ack,
    ChildContext,
    ConfigChanged,
    ConfigSet,
    Down,
    Drain,
    Dumped,
    LastSave,
    Ping,
    Pong,
    Ready,
    Slots,
)


def run(ctx: ChildContext) -> None:
    """The life of a dummy router or shard."""
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    seen = {"random": random.random(), "shard_states": {}, "maxmemory": ctx.config.maxmemory}

    apart = False
    unsaid: list[int] = []

    def connect() -> None:
        while unsaid and not apart:
            channel.send(Ack(unsaid.pop()))

    def on_message(message: Down) -> None:
        if isinstance(message, ConfigChanged):
            if ctx.role == "shard" and message.config.maxmemory > int(os.environ.get("DUMMY_MOST", f"{1 << 60}")):
                channel.send(Ack(message.id, "too much for me"))
                return
            seen["maxmemory"] = message.config.maxmemory
            channel.send(Ack(message.id))
        elif isinstance(message, Ping):
            channel.send(Pong(message.id))
        elif isinstance(message, Slots):
            channel.send(Ack(message.id))
        elif isinstance(message, LastSave):
            channel.send(Dumped(message.id))
        elif isinstance(message, Drain):
            done.set()
        elif hasattr(message, "state"):
            seen["shard_states"][message.index] = message.state
            if message.id:
                unsaid.append(message.id)
                connect()

    channel = ControlChannel(loop, ctx.control_fd, on_message, done.set)
    loop.add_reader(ctx.death_fd, os._exit, 1)
    if ctx.role == "shard" and str(ctx.index) in os.environ.get("DUMMY_BROKEN", "").split():
        raise RuntimeError("broken on purpose")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            word, _, rest = line.decode().strip().partition(" ")
            writer.write(f"{await reply(word, rest)}\n".encode())
            await writer.drain()

    async def reply(word: str, rest: str) -> str:
        nonlocal apart
        if word == "DIE":
            os._exit(3)
        if word in ("APART", "TOGETHER"):
            apart = word == "APART"
            connect()
            return "OK"
        if word == "SET":
            try:
                await channel.request(ConfigSet(0, {"maxmemory": rest}))
            except ControlError as error:
                return str(error)
            return "OK"
        if word == "ENV":
            signals = {
                "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            }
            return json.dumps({**seen, **signals, "pid": os.getpid(), "unsaid": len(unsaid)})
        return "PONG"

    async def serve() -> None:
        if ctx.role == "router":
            for fd in ctx.listeners:
                await asyncio.start_server(answer, sock=socket.socket(fileno=fd))
        channel.send(Ready())
        await done.wait()
        channel.close()

    loop.run_until_complete(serve())


def install() -> None:
    """Put the dummies where the supervisor looks for the real ones."""
    for role in ("router", "shard"):
        module = types.ModuleType(f"kache.{role}.main")
        module.__dict__["run"] = run
        sys.modules[module.__name__] = module


if __name__ == "__main__":
    install()
    from kache.cli.main import run as command_line

    sys.exit(command_line())
