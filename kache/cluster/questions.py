"""Questions of one router to the others, which the supervisor passes on, and the answers that it brings back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kache.cluster import control, messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.cluster.control import Conversation

__all__ = ["Questions"]


class Questions:
    """`send` sends a child a message; `reply` answers whoever asked, if it is still there."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, messages.Down], None],
        reply: Callable[[Conversation, messages.Down], None],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._reply = reply
        self._askers: dict[int, tuple[Conversation, int]] = {}
        """Who asked the routers, under which number of its own, by the number of the question."""

    def ask(self, asker: Conversation, request: int, what: str, words: list[bytes]) -> None:
        """Ask the routers other than `asker`, which learns with an Ack that all have answered, or that time is up."""
        routers = [child for child in self._children if child.role == "router" and child.ready_at]
        asked = [child for child in routers if child.conversation not in (None, asker) and not child.unresponsive]
        number, now = self._acknowledgements.next_id(), time.monotonic()
        self._askers[number] = (asker, request)

        def finish(_late: str) -> None:
            del self._askers[number]
            self._reply(asker, messages.Ack(request))

        # First, so that the question ends whatever comes of sending it.
        self._acknowledgements.begin(number, [child.name for child in asked], now, finish, control.ANSWER_SECONDS)
        for child in asked:
            self._send(child, messages.Question(number, what, words, now + control.ANSWER_SECONDS))

    def on_answer(self, child: Child, answer: messages.Answer) -> None:
        """Pass an answer on, unless it is too late."""
        if answer.id in self._askers:
            asker, request = self._askers[answer.id]
            self._reply(asker, messages.Answer(request, answer.body, answer.last, child.index))
            if answer.last:
                self._acknowledgements.acknowledged(answer.id, child.name)
