"""One process of the load generator: connects, warms up, measures, and hands back plain counts.

Owns the sockets until they are connected (`kache.load.driver` has them from then on) and the phases of a run. `kache.load.generator`
runs a `Worker` in its own thread, or, for several processes, as ``python -m kache.load.worker``: one JSON line with the
spec on stdin, ``"ready"`` on stdout, ``"go"`` on stdin, lines of progress on stdout, and the outcome as the last one.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from kache.client.codec import MORE, Reader, encode_request
from kache.errors import CommandError
from kache.load.driver import Generator
from kache.load.spec import (
    LoadError,
    LoadSpec,
    UnreachableError,
    command_shares,
    parse_distribution,
    preload_command,
    templates,
)

__all__ = ["CommandCounts", "Progress", "ProgressLine", "Worker", "WorkerResult", "main"]

Progress = Callable[[str, float, int], None]
"""Called with the phase (preload, warm-up, measure, drain), its share done (0 to 1) and the requests answered in it."""

_STEP_NS: Final = 50_000_000  # between two looks at the clock, the connections and the progress bar
_RECONNECT_TIMEOUT: Final = 0.25  # short, because nothing is sent meanwhile
_PRELOAD_PIPELINE: Final = 64


class CommandCounts(msgspec.Struct):
    """The counters of one command; `buckets` are (lowest ns, count) of its latency histogram."""

    requests: int
    errors: int
    unexpected: int
    hits: int
    misses: int
    mismatches: int
    slowest: int
    buckets: list[tuple[int, int]]


class WorkerResult(msgspec.Struct):
    """What one process counted during its measured time."""

    seconds: float
    requests: int
    lost: int
    disconnects: int
    unanswered: int
    error_texts: list[str]
    bytes_in: int
    bytes_out: int
    cpu_seconds: float
    latest: int
    stalled: bool
    interrupted: bool
    commands: dict[str, CommandCounts]


class ProgressLine(msgspec.Struct, tag="progress"):
    """A step of a process, on its stdout."""

    phase: str
    done: float
    requests: int


class ResultLine(msgspec.Struct, tag="result"):
    """The last line of a process."""

    result: WorkerResult


class FailureLine(msgspec.Struct, tag="failure"):
    """The last line of a process that could not run."""

    message: str
    unreachable: bool


class Worker:
    """Connections and a generator for one spec; all of it runs in the calling thread."""

    def __init__(self, spec: LoadSpec, progress: Progress | None = None) -> None:
        self.spec = spec
        self.shares = command_shares(spec)
        self._progress = progress or (lambda phase, done, requests: None)
        self._generator = self._make(spec, self.shares)
        self._interrupted = False

    @staticmethod
    def _make(spec: LoadSpec, shares: dict[str, float], *, sequential: bool = False) -> Generator:
        return Generator(
            spec.connections,
            spec.pipeline,
            templates(spec, shares),
            binary=spec.protocol == "binary",
            keys=spec.keys,
            exponent=parse_distribution(spec.distribution),
            value_size=spec.value_size,
            members=spec.members,
            seed=spec.seed,
            rate=spec.rate or 0,
            sequential=sequential,
            portable=spec.portable,
        )

    def connect(self) -> None:
        """Opens every connection, or raises `LoadError`."""
        for _ in range(self.spec.connections):
            self._generator.attach(connect(self.spec, self.spec.timeout))

    def preload(self) -> None:
        """Stores what the load is going to read, each key once."""
        spec = msgspec.structs.replace(
            self.spec,
            connections=min(self.spec.connections, 16),
            pipeline=_PRELOAD_PIPELINE if self.spec.value_size <= 4096 else 4,
            rate=None,
            distribution="uniform",
        )
        for name, requests in preload_command(self.spec, self.shares).items():
            generator = self._make(spec, {name: 1.0}, sequential=True)
            for _ in range(spec.connections):
                generator.attach(connect(spec, spec.timeout))
            generator.begin(time.monotonic_ns(), requests)
            _, stalled = self._step(generator, "preload", None, requests)
            _, errors, unexpected, *_ = generator.counters(0)
            if stalled or errors or unexpected or generator.lost:
                texts = "; ".join(text.decode("utf-8", "replace") for text in generator.error_texts())
                raise LoadError(f"the keys could not be stored before the load: {texts or 'no answer'}")

    def run(self) -> WorkerResult:
        """Warm-up, measured time, and the replies that were still in flight."""
        spec, generator = self.spec, self._generator
        if spec.warmup > 0:
            generator.begin(time.monotonic_ns())
            self._step(generator, "warm-up", spec.warmup, None)
            self._drain(generator)
        generator.reset_counters()
        cpu, begun = time.thread_time(), time.monotonic_ns()
        generator.begin(begun, spec.requests or 0)
        seconds = None if spec.requests else spec.seconds
        with self._ended_by_interrupt():
            requests, stalled = self._step(generator, "measure", seconds, spec.requests)
            elapsed = (time.monotonic_ns() - begun) / 1e9
            cpu = time.thread_time() - cpu
            self._drain(generator)
        return WorkerResult(
            seconds=elapsed,
            requests=requests,
            lost=generator.lost,
            disconnects=generator.disconnects,
            unanswered=generator.in_flight,
            error_texts=[text.decode("utf-8", "replace") for text in generator.error_texts()],
            bytes_in=generator.bytes_in,
            bytes_out=generator.bytes_out,
            cpu_seconds=cpu,
            latest=generator.latest,
            stalled=stalled,
            interrupted=self._interrupted,
            commands={
                name: CommandCounts(*generator.counters(i), buckets=generator.histogram(i))
                for i, name in enumerate(self.shares)
            },
        )

    @contextlib.contextmanager
    def _ended_by_interrupt(self) -> Iterator[None]:
        """Ctrl-C ends the measurement, and what was measured so far is the result; a second one ends the program."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_interrupt(_number: int, _frame: object) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _step(self, generator: Generator, phase: str, seconds: float | None, requests: int | None) -> tuple[int, bool]:
        """Runs a phase to its time or its number of requests; returns the answered ones and whether it stood still."""
        begun = alive = time.monotonic_ns()
        end = begun + round(seconds * 1e9) if seconds is not None else None
        seen = 0
        while (now := time.monotonic_ns()) and (end is None or now < end) and not generator.finished:
            if self._interrupted:
                break
            generator.step(now + _STEP_NS if end is None else min(now + _STEP_NS, end))
            # Between two requests of a slow schedule there is nothing to wait for.
            if generator.completed != seen or (generator.open and not generator.in_flight):
                seen, alive = generator.completed, now
            elif now - alive > self.spec.timeout * 1e9:
                return generator.completed, True
            if generator.open < self.spec.connections and phase != "preload":
                self._reconnect(generator)
            elif phase == "preload" and generator.disconnects:
                return generator.completed, False
            share = (now - begun) / (end - begun) if end is not None else generator.completed / (requests or 1)
            self._progress(phase, min(share, 1.0), generator.completed)
        self._progress(phase, 1.0, generator.completed)
        return generator.completed, False

    def _drain(self, generator: Generator) -> None:
        generator.stop()
        end = time.monotonic_ns() + round(self.spec.timeout * 1e9)
        while generator.in_flight and (now := time.monotonic_ns()) < end:
            generator.step(min(now + _STEP_NS, end))

    def _reconnect(self, generator: Generator) -> None:
        """Once a step: a server that is away must not turn the generator into a busy loop."""
        while generator.open < self.spec.connections:
            try:
                generator.attach(connect(self.spec, _RECONNECT_TIMEOUT))
            except LoadError:
                time.sleep(0.01)
                return


def connect(spec: LoadSpec, timeout: float) -> int:
    """A connected, authenticated, non-blocking descriptor, owned by the caller."""
    try:
        with socket.create_connection((spec.host, spec.port), timeout) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _greet(connection, spec)
            connection.setblocking(False)
            return connection.detach()
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UnreachableError(f"cannot connect to {spec.host}:{spec.port}: {reason}") from error


def _greet(connection: socket.socket, spec: LoadSpec) -> None:
    greetings: list[tuple[str, ...]] = []
    if spec.password is not None:
        greetings.append(("AUTH", *([spec.username] if spec.username else []), spec.password))
    if spec.db:
        greetings.append(("SELECT", str(spec.db)))
    for greeting in greetings:
        if spec.protocol == "binary":
            connection.sendall(encode_request(greeting))
            answer = _binary_answer(connection)
        else:
            words = [word.encode() for word in greeting]
            parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
            connection.sendall(b"".join(parts))
            answer = _resp_answer(connection)
        if answer:
            raise LoadError(f"{greeting[0]} was refused: {answer}")


def _resp_answer(connection: socket.socket) -> str:
    """The error's text, or nothing."""
    line = b""
    while not line.endswith(b"\r\n"):
        if not (data := connection.recv(1)):
            raise ConnectionResetError("closed by the server")
        line += data
    return line[1:].strip().decode("utf-8", "replace") if line.startswith(b"-") else ""


def _binary_answer(connection: socket.socket) -> str:
    reader = Reader()
    while (reply := reader.next_reply()) is MORE:
        if not (data := connection.recv(4096)):
            raise ConnectionResetError("closed by the server")
        reader.feed(data)
    return reply.message if isinstance(reply, CommandError) else ""


def main() -> None:
    """The program of one process; see the head of the module."""

    def say(line: Any) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadSpec)
    worker = Worker(spec, lambda phase, done, requests: say(ProgressLine(phase, done, requests)))
    try:
        worker.connect()
        say("ready")
        if sys.stdin.buffer.readline().strip() == b"go":
            say(ResultLine(worker.run()))
    except LoadError as error:
        say(FailureLine(str(error), isinstance(error, UnreachableError)))
    except KeyboardInterrupt:
        sys.exit(130)  # before anything was measured


if __name__ == "__main__":
    main()
