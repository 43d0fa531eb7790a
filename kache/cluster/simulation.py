"""What a test stages in its cluster: the time of the data, and faults. Only in a cluster started with ``--for-tests``.

The whole stage is one message, `kache.cluster.messages.Stage`: who directs it (`kache.testing`) sends it over the admin socket
whenever something changes; the supervisor does its part here and passes it on; a child that is started later finds it
in its context. So nothing needs undoing but the stage, and a client of the port can reach none of it.

    the director ─► supervisor ─┬► children kept down, or stopped by SIGSTOP       here
                                ├► routers   clients' idle time                    router/main.py
                                └► shards    clock, late replies, refused writes   shard/main.py
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.messages import Ack, Down, Stage, StageIs

__all__ = ["Simulation"]

STAGE_SECONDS = 30.0
"""How long the children may take: a shard answers when everything that has expired by then is removed."""


class Simulation:
    """The supervisor's part of a stage; `allowed` in a cluster that was started for tests."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, Down], None],
        answer: Callable[[Conversation, Down], None],
        allowed: bool,
    ) -> None:
        self.stage = Stage() if allowed else None
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._answer = answer

    def keeps_down(self, child: Child) -> bool:
        """Whether it is not to be started now."""
        return self.stage is not None and child.name in self.stage.down

    def end(self) -> None:
        """The cluster ends, as far as it can by itself: who stands still goes on."""
        for child in self._children:
            if self.stage is not None and child.name in self.stage.stopped:
                _signal(child, signal.SIGCONT)

    def ask(self, director: Conversation, request: int, stage: Stage) -> None:
        """Have everybody play this stage, and tell who directs it once all that can do."""
        error = self._set(stage)
        if error:
            self._answer(director, Ack(request, error))
            return
        number = self._acknowledgements.next_id()
        reached = [child.name for child in self._children if _follows(child, stage)]
        self._acknowledgements.begin(
            number,
            reached,
            time.monotonic(),
            lambda late: self._answer(director, Ack(request, late)),
            seconds=STAGE_SECONDS,
        )
        for child in self._children:
            self._send(child, StageIs(number, stage))

    def _set(self, stage: Stage) -> str:
        """Stop, end and start children by the stage; why it cannot be played, or an empty string."""
        if self.stage is None:
            return "this cluster was not started for tests"
        known = {child.name for child in self._children}
        unknown = {*stage.down, *stage.stopped, *stage.delay_ms, *stage.write_refusals} - known
        if unknown:
            return f"there is no {min(unknown)} in this cluster"
        before, self.stage = self.stage, stage
        for child in self._children:
            if child.name in stage.down:
                child.restart_at = None
                _signal(child, signal.SIGKILL)
            elif child.name in before.down:
                child.failures = 0
                child.restart_at = time.monotonic()
            if child.name in stage.stopped:
                _signal(child, signal.SIGSTOP)
            elif child.name in before.stopped:
                _signal(child, signal.SIGCONT)
        return ""


def _follows(child: Child, stage: Stage) -> bool:
    """Whether something is to be waited for: its acknowledgement, or the end of one that is kept down."""
    if child.name in stage.down:
        return child.pid != 0
    return child.name not in stage.stopped and child.pid != 0 and child.ready_at > 0


def _signal(child: Child, number: int) -> None:
    if child.pid:
        os.kill(child.pid, number)
