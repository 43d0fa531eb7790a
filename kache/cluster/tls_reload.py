"""New certificates without a restart: everybody reads them, and only if all could, everybody serves them.

    ask ─► TlsPrepare to all ─┬─ all can ──────► TlsCommit to all; new connections see it, the others keep theirs
                              └─ one cannot ───► the old certificate everywhere; its reason

Asked for by SIGHUP, by ``kache cluster reload``, and when the files have changed, if somebody looks (tls-auto-reload-interval).
Who hangs meanwhile does not hold it up: when it lives again, all of them read the files once more.
Owned by the supervisor, which reads none of the files: of them it only knows their times.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.certificates import fingerprint
from kache.cluster.children import Child
from kache.config.settings import Config

__all__ = ["TlsReload"]

_log = logging.getLogger("kache")


class TlsReload:
    """`send` sends a child a message; `config` says what is effective."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, messages.Down], None],
        config: Callable[[], Config],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._config = config
        self._waiting: list[Callable[[str], None]] = []
        self._again: list[Callable[[str], None]] = []
        """Who has asked while one was under way, which may have read files of before."""
        self._missed: set[str] = set()
        """Who hung while the others were asked."""
        self._seen = fingerprint(config())
        self._looked_at = time.monotonic()
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last reload changed nothing, for the status; empty if it did."""
        return self._trouble

    def ask(self, answer: Callable[[str], None]) -> None:
        """Read the files again; `answer` gets "" once new connections see them, or what is wrong with them."""
        if not self._serving():
            answer("")
        elif self._waiting:
            self._again.append(answer)
        else:
            self._waiting = [answer]
            self._prepare()

    def look(self, now: float) -> None:
        """To be called about once a second: whether the files have changed, if somebody wants to know."""
        seconds = self._config().tls_auto_reload_interval
        if not seconds or now - self._looked_at < seconds or not self._serving():
            return
        self._looked_at = now
        found = fingerprint(self._config())
        if found != self._seen:
            self._seen = found
            _log.info("the files of the TLS certificate have changed")
            self.ask(lambda error: None)

    def lives_again(self, child: Child) -> None:
        """To be called when one that hung gives signs of life: it may have missed a certificate."""
        if child.name in self._missed:
            self._missed.discard(child.name)
            self.ask(lambda error: None)

    def _serving(self) -> list[Child]:
        config = self._config()
        roles = {"router"} if config.tls_port else set()
        roles |= {"metrics"} if config.metrics_tls and config.metrics_port else set()
        return [child for child in self._children if child.role in roles and child.conversation]

    def _asked(self) -> list[Child]:
        serving = self._serving()
        self._missed |= {child.name for child in serving if child.unresponsive}
        return [child for child in serving if not child.unresponsive]

    def _prepare(self) -> None:
        self._seen = fingerprint(self._config())
        asked = self._asked()
        number = self._acknowledgements.next_id()
        names = [child.name for child in asked]
        lives = {child.name: child.restarts for child in asked}
        now = time.monotonic()
        self._acknowledgements.begin(number, names, now, lambda late: self._commit(lives), refuse=self._end)
        for child in asked:
            self._send(child, messages.TlsPrepare(number))

    def _commit(self, lives: dict[str, int]) -> None:
        # Who was started meanwhile has read the new files already.
        asked = [child for child in self._asked() if lives.get(child.name) == child.restarts]
        number = self._acknowledgements.next_id()
        self._acknowledgements.begin(
            number, [child.name for child in asked], time.monotonic(), lambda late: self._end("", late)
        )
        for child in asked:
            self._send(child, messages.TlsCommit(number))

    def _end(self, error: str, late: str = "") -> None:
        if error:
            _log.warning("the TLS certificate stays the one before: %s", error)
        elif late:
            _log.warning("the TLS certificate was read again: %s", late)
        else:
            _log.info("the TLS certificate was read again")
        self._trouble = f"The TLS certificate was not read again: {error}" if error else ""
        answers, self._waiting, again, self._again = self._waiting, [], self._again, []
        for answer in answers:
            answer(error or late)
        for answer in again:
            self.ask(answer)
