"""The metrics process from its start to its end: entered as ``run(ctx)`` by the supervisor, which imports it by name.

Owns the event loop and the control channel. It holds nothing: killed at any moment, it is started again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl

import uvloop

from kache.cluster import logs
from kache.cluster.certificates import CertificateError, loaded
from kache.cluster.control import ControlChannel, ControlError
from kache.cluster.messages import (
    Ack,
    ChildContext,
    ClusterStatus,
    ConfigChanged,
    Down,
    Drain,
    Ping,
    Pong,
    Ready,
    Slots,
    StageIs,
    StatusReply,
    StatusRequest,
    TlsCommit,
    TlsPrepare,
)
from kache.cluster.resources import METRICS_SOCKET
from kache.metrics.pages import Pages
from kache.metrics.server import Server
from kache.metrics.source import Source

__all__ = ["run"]

_log = logging.getLogger("kache.metrics")


def run(ctx: ChildContext) -> None:
    """Answers until the supervisor says otherwise. Returns when the process shall end."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_Process(ctx, loop).serve())
    finally:
        loop.close()


class _Process:
    def __init__(self, ctx: ChildContext, loop: asyncio.AbstractEventLoop) -> None:
        self._ctx = ctx
        self._loop = loop
        self._done = asyncio.Event()
        path = None if ctx.port else os.path.join(ctx.run_dir, METRICS_SOCKET)
        self._source = Source(ctx.config, ctx.port, ctx.own_password, path)
        self._pages = Pages(ctx.config, self._source, self._status)
        self._certificate = loaded(ctx.config, for_clients=False) if ctx.config.metrics_tls else None
        self._prepared = self._certificate
        self._server = Server(self._pages.answer)
        self._channel = ControlChannel(loop, ctx.control_fd, self._on_message, self._done.set)

    async def serve(self) -> None:
        """Starts, serves, and returns once told to."""
        self._loop.add_reader(self._ctx.death_fd, lambda: os._exit(1))
        self._loop.add_signal_handler(signal.SIGTERM, self._done.set)
        # Ctrl-C reaches the whole foreground group; the supervisor decides what it means.
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        for fd in self._ctx.listeners:
            await self._server.listen(socket.socket(fileno=fd), self._tls())
        self._look_at_log()
        sampling = self._loop.create_task(self._source.sample())
        self._channel.send(Ready())
        await self._done.wait()
        sampling.cancel()
        await self._server.close()
        self._channel.close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._certificate is None:
            return None
        context: ssl.SSLContext = self._certificate.context
        # asyncio keeps the context that it is given; this one hands every new connection to the present one.
        context.sni_callback = self._use_present
        return context

    def _use_present(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._certificate is not None:
            connection.context = self._certificate.context

    def _take_in_certificate(self, message: TlsPrepare | TlsCommit) -> None:
        error = ""
        if isinstance(message, TlsCommit):
            self._certificate = self._prepared
        else:
            try:
                self._prepared = loaded(self._ctx.config, for_clients=False)
            except CertificateError as refused:
                error = str(refused)
        self._channel.send(Ack(message.id, error))

    async def _status(self) -> ClusterStatus:
        reply = await self._channel.request(StatusRequest(0))
        if not isinstance(reply, StatusReply):
            raise ControlError("the supervisor does not say how its children are")
        return reply.status

    def _on_message(self, message: Down) -> None:
        if isinstance(message, ConfigChanged):
            logs.set_level(message.config)
            self._ctx.config = self._pages.config = message.config
            self._channel.send(Ack(message.id))
        elif isinstance(message, Slots | StageIs):
            self._channel.send(Ack(message.id))
        elif isinstance(message, TlsPrepare | TlsCommit):
            self._take_in_certificate(message)
        elif isinstance(message, Ping):
            self._channel.send(Pong(message.id))
        elif isinstance(message, Drain):
            self._done.set()

    def _look_at_log(self) -> None:
        logs.tell_left_out()
        self._loop.call_later(logs.WINDOW_SECONDS / 2, self._look_at_log)
