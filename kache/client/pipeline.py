"""Pipelines: commands collected first and sent together, for both clients.

Pure: a pipeline records, the client sends. Every method of `Commands` works on a pipeline and returns the pipeline, so
that calls chain; the reply takes the shape it has in the client, in the list that ``execute`` returns. Type checkers find
these methods in `recorded.pyi`, which is made of `Commands`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from kache.client.codec import Argument, Reply, as_is
from kache.client.commands import Commands, S, T
from kache.errors import CommandError

if TYPE_CHECKING:
    from kache.client.recorded import RecordedCommands
else:
    RecordedCommands = object

__all__ = [
    "AsyncPipeline", "Pipeline", "Recorder", "Step", "Watching", "check_stateless", "executed", "framed", "leave_state",
    "leaves_state", "raise_first",
]  # fmt: skip

Step = tuple[Sequence[Argument], Callable[[Reply], Any]]
P = TypeVar("P", bound="_Recorded")

# These change the connection itself: a connection that has seen one is closed instead of going back to the pool. MULTI does
# not if EXEC follows in the same exchange.
_STATEFUL = frozenset(b"auth asking client hello multi quit readonly readwrite reset select watch".split())
_INSTEAD = {
    b"select": "use Client(db=…)",
    b"auth": "use Client(password=…)",
    b"multi": "use pipeline(transaction=True)",
    b"watch": "use transaction(function, *keys)",
}


def _name(arguments: Sequence[Argument]) -> bytes:
    first = arguments[0] if arguments else b""
    text = first.encode() if isinstance(first, str) else bytes(first) if not isinstance(first, int | float) else b""
    return text.lower()


def leaves_state(arguments: Sequence[Argument]) -> bool:
    """Whether the command changes the connection it runs on."""
    return _name(arguments) in _STATEFUL


def leave_state(requests: Sequence[Sequence[Argument]]) -> bool:
    """Whether these commands, sent together, leave the connection in another state than before."""
    if len(requests) > 1 and _name(requests[0]) == b"multi" and _name(requests[len(requests) - 1]) == b"exec":
        requests = requests[1 : len(requests) - 1]
    return any(map(leaves_state, requests))


def check_stateless(arguments: Sequence[Argument]) -> None:
    """Raises `ValueError` for a command whose effect would be lost with its pooled connection."""
    name = _name(arguments)
    if name in _INSTEAD:
        raise ValueError(f"{name.decode().upper()} concerns one connection and these are pooled: {_INSTEAD[name]}")


class _Recorder(Commands[bytes]):
    """The typed methods, writing down instead of sending."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], Any]) -> Any:
        self.steps.append((arguments, convert))

    def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], Any], seconds: float) -> Any:
        raise ValueError(f"a pipeline does not wait: call {arguments[0]!r} on the client")


class _Recorded(RecordedCommands):
    """What both pipelines share: recording, and the shapes of the replies."""

    def __init__(self) -> None:
        self._recorder = _Recorder()

    def __len__(self) -> int:
        return len(self._recorder.steps)

    def command(self: P, *arguments: Argument) -> P:
        """Adds any command, its reply unchanged."""
        self._recorder.steps.append((arguments, as_is))
        return self

    if not TYPE_CHECKING:  # for whom a name that is not in recorded.pyi is none

        def __getattr__(self, name: str) -> Callable[..., Any]:
            if name.startswith("_") or name == "scan_iter" or not hasattr(Commands, name):
                raise AttributeError(f"a pipeline has no command {name!r}")
            method = getattr(self._recorder, name)

            def record(*positional: Any, **named: Any) -> Any:
                method(*positional, **named)
                return self

            record.__name__, record.__doc__ = name, method.__doc__
            return record

    def _take(self) -> list[Step]:
        steps, self._recorder.steps = self._recorder.steps, []
        return steps

    @staticmethod
    def _shaped(steps: Sequence[Step], replies: Sequence[Reply], raise_errors: bool) -> list[Any]:
        if raise_errors:
            raise_first(replies)
        return [
            reply if isinstance(reply, CommandError) else convert(reply)
            for (_, convert), reply in zip(steps, replies, strict=True)
        ]


def framed(steps: Sequence[Step]) -> list[Sequence[Argument]]:
    """The commands of a transaction, MULTI and EXEC around them."""
    return [("multi",), *(arguments for arguments, _ in steps), ("exec",)]


def executed(replies: Sequence[Reply]) -> list[Reply] | None:
    """What EXEC answers; None when something watched had changed. Raises what refused it, the cause rather than EXECABORT."""
    reply = replies[len(replies) - 1]
    if isinstance(reply, CommandError):
        cause = next((each for each in replies if isinstance(each, CommandError)), reply)
        raise cause if reply.code == "EXECABORT" else reply
    assert reply is None or isinstance(reply, list)
    return reply


def raise_first(replies: Sequence[Reply]) -> None:
    """Raises the first error among the replies, if there is one."""
    for reply in replies:
        if isinstance(reply, CommandError):
            raise reply


class _Sender(Protocol):
    def execute_many(self, requests: Sequence[Sequence[Argument]], *, timeout: float | None = ...) -> list[Reply]: ...


class _AsyncSender(Protocol):
    def execute_many(
        self, requests: Sequence[Sequence[Argument]], *, timeout: float | None = ...
    ) -> Awaitable[list[Reply]]: ...


class Recorder(_Recorded, Generic[S]):
    """Commands that a transaction will execute."""

    def requests(self) -> list[Sequence[Argument]]:
        """All of them, MULTI and EXEC around them."""
        return framed(self._recorder.steps)

    def shaped(self, replies: Sequence[Reply]) -> list[Any]:
        """Their replies, each in the shape it has in the client; raises the first error among them."""
        return self._shaped(self._recorder.steps, replies, True)


class Watching(Commands[S]):
    """What the function of ``Client.transaction`` is given: keys are watched from before it was called.

    Its methods read (or write) at once, as the client's do. What `queue` collects is executed at once and alone when the
    function returns, unless a watched key has changed; then the function is called again.
    """

    def __init__(self, send: Callable[[Sequence[Sequence[Argument]]], list[Reply]]) -> None:
        self._send = send
        self.queue: Recorder[S] = Recorder()

    def execute(self, *arguments: Argument) -> Reply:
        """Any command at once, by its name."""
        (reply,) = self._send([arguments])
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        return convert(self.execute(*arguments))

    def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        return self._run(arguments, convert)


class Pipeline(_Recorded, Generic[S]):
    """Commands to be sent together: ``Client.pipeline()``.

    With ``transaction=True`` they are executed at once and alone, or not at all; otherwise other clients' commands may run
    in between. Reusable after `execute`. It belongs to one thread.
    """

    def __init__(self, client: _Sender, transaction: bool = False) -> None:
        super().__init__()
        self._client = client
        self._transaction = transaction

    def execute(self, *, raise_errors: bool = True) -> list[Any]:
        """Sends everything and returns the replies in order; all commands are executed whatever one of them answers.

        An error reply is raised (the first one) after all replies are in, or with ``raise_errors=False`` stands in the
        list as a `CommandError`. `ConnectionLostError` and `RequestTimeoutError` carry the replies that did arrive. A
        transaction that was refused as a whole raises why, whatever ``raise_errors`` says: nothing was executed then.
        """
        steps = self._take()
        if self._transaction and steps:
            replies = executed(self._client.execute_many(framed(steps))) or []
        else:
            replies = self._client.execute_many([arguments for arguments, _ in steps])
        return self._shaped(steps, replies, raise_errors)

    def __enter__(self) -> Pipeline[S]:
        return self

    def __exit__(self, *exception: object) -> None:
        self._take()


class AsyncPipeline(_Recorded, Generic[S]):
    """Commands to be sent together: ``AsyncClient.pipeline()``; as `Pipeline`, with ``await pipeline.execute()``."""

    def __init__(self, client: _AsyncSender, transaction: bool = False) -> None:
        super().__init__()
        self._client = client
        self._transaction = transaction

    async def execute(self, *, raise_errors: bool = True) -> list[Any]:
        """Sends everything and returns the replies in order; see `Pipeline.execute`."""
        steps = self._take()
        if self._transaction and steps:
            replies = executed(await self._client.execute_many(framed(steps))) or []
        else:
            replies = await self._client.execute_many([arguments for arguments, _ in steps])
        return self._shaped(steps, replies, raise_errors)

    async def __aenter__(self) -> AsyncPipeline[S]:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._take()
