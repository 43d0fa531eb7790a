"""The conversation of a test with the supervisor of its cluster, and the stage as it is now.

Owns one connection to the admin socket. Every change sends the whole stage and returns when all processes play it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from kache.cluster import control, messages
from kache.cluster.messages import ChildStatus, ClusterStatus, Stage
from kache.cluster.run_dir import find_control
from kache.errors import KacheError

__all__ = ["ClusterFailed", "Director"]

PATIENCE_SECONDS = 40.0
"""How long the supervisor may take with anything: more than it gives its children."""
POLL_SECONDS = 0.002

T = TypeVar("T")


class ClusterFailed(KacheError):
    """The cluster of a test did not start, does not answer, or has ended; the message says which and why."""


class Director:
    """Asks the supervisor of the cluster on `port`; raises ClusterFailed when it cannot."""

    def __init__(self, port: int, environ: Mapping[str, str]) -> None:
        self.stage = Stage()
        self._number = 0
        self._buffer = bytearray()
        path = find_control(environ, port)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._pid = os.getpid()
        try:
            if path is None:
                raise FileNotFoundError(2, "its admin socket is not there")
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise ClusterFailed(f"the cluster on port {port} cannot be reached: {error.strerror}") from None

    def change(self, **parts: Any) -> None:
        """Make these parts of the stage (fields of `Stage`) what they are from now on."""
        wanted = msgspec.structs.replace(self.stage, **parts)
        self._must(self._ask(lambda number: messages.SetStage(number, wanted)))
        self.stage = wanted

    def configure(self, values: dict[str, str]) -> None:
        """Give live settings these values."""
        self._must(self._ask(lambda number: messages.ConfigSet(number, values)))

    def confirm(self) -> None:
        """Return once all processes have seen what the supervisor has told them so far."""
        self.change()

    def status(self) -> ClusterStatus:
        """What `kache cluster status` shows."""
        answer = self._ask(messages.StatusRequest)
        assert isinstance(answer, messages.StatusReply)
        return answer.status

    def child(self, name: str) -> ChildStatus:
        """The status of ``shard 2``; ValueError when there is none of that name."""
        children = self.status().children
        found = next((child for child in children if f"{child.role} {child.index}" == name), None)
        if found is None:
            role = name.partition(" ")[0]
            count = sum(child.role == role for child in children)
            raise ValueError(f"there is no {name}: the cluster has {count} {role}s, the first is 0")
        return found

    def wait_until(self, condition: Callable[[], T], what: str) -> T:
        """The first true value of `condition`."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if time.monotonic() > until:
                raise ClusterFailed(f"not within {PATIENCE_SECONDS:g} s: {what}")
            time.sleep(POLL_SECONDS)
        return found

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()

    @staticmethod
    def _must(answer: messages.Down) -> None:
        assert isinstance(answer, messages.Ack)
        if answer.error:
            raise ClusterFailed(answer.error)

    def _ask(self, message: Callable[[int], messages.Up]) -> messages.Down:
        if self._pid != os.getpid():
            raise ClusterFailed("a cluster is directed by the process that started it, not by its forks")
        self._number += 1
        try:
            control.send(self._socket, message(self._number))
            return control.receive(self._socket, self._buffer)
        except (control.ControlError, OSError) as error:
            raise ClusterFailed(f"the cluster does not answer any more: {error}") from None
