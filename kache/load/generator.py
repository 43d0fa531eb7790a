"""Load on a server, and an honest account of what it did.

`run` is what `kache bench` and the benchmark suite call, `summary` its result in words. Owns the generator's processes and
the percentiles; the load itself is `kache.load.worker` and `kache.load.driver`. Works against everything that speaks RESP.

::

    result = run(LoadSpec(port=7379, commands="set", pipeline=64))
    print(result.throughput, result.latency.p99)
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from kache.load.spec import CommandResult, Latency, LoadError, LoadResult, LoadSpec, UnreachableError, check
from kache.load.worker import FailureLine, Progress, ProgressLine, ResultLine, Worker, WorkerResult

__all__ = ["CommandResult", "Latency", "LoadError", "LoadResult", "LoadSpec", "UnreachableError", "run", "summary"]

_LIMITED: Final = 0.9  # share of a core from which the generator, not the server, sets the pace
_HIGHEST_NS: Final = 3_600_000_000_000
_HEARD = ProgressLine | ResultLine | FailureLine


def run(spec: LoadSpec, progress: Progress | None = None) -> LoadResult:
    """Runs one load and returns what it measured; blocks for preload, warm-up and run together.

    `progress(phase, share, requests)` is called about 20 times a second, from the calling thread or, with several
    processes, from another one. Ctrl-C while it measures ends that, and the result is what was measured by then. Raises `LoadError` for a spec that makes no sense, when the server cannot be reached at
    the start, and when the percentiles' library is not installed.
    """
    check(spec)
    _histogram()
    Worker(spec, progress).preload()
    if spec.processes == 1:
        worker = Worker(spec, progress)
        worker.connect()
        return _combine(spec, [worker.run()])
    return _combine(spec, _run_processes(_divide(spec), progress))


def _histogram() -> Any:
    """An empty HdrHistogram of nanoseconds."""
    try:
        module = importlib.import_module("hdrh.histogram")
    except ImportError:
        raise LoadError("the benchmark needs hdrhistogram: pip install '.[bench]' in Kache's folder") from None
    return module.HdrHistogram(1, _HIGHEST_NS, 3)


# Processes -------------------------------------------------------------------------------------------------------


def _divide(spec: LoadSpec) -> list[LoadSpec]:
    """The spec's share of each process."""
    n = spec.processes

    def share(total: int, i: int) -> int:
        return total // n + (i < total % n)

    return [
        msgspec.structs.replace(
            spec,
            processes=1,
            connections=share(spec.connections, i),
            requests=None if spec.requests is None else max(share(spec.requests, i), 1),
            rate=None if spec.rate is None else spec.rate / n,
            seed=spec.seed + 7919 * i,
        )
        for i in range(n)
    ]


def _run_processes(specs: Sequence[LoadSpec], progress: Progress | None) -> list[WorkerResult]:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process()) for _ in specs]
        for process, spec in zip(processes, specs, strict=True):
            _tell(process, msgspec.json.encode(spec))
        for process in processes:
            _hear(process, "ready")
        for process in processes:
            _tell(process, b"go")
        shown = _Together(progress, len(specs))
        outcomes: list[WorkerResult | LoadError] = [LoadError("not run")] * len(specs)

        def follow(i: int) -> None:
            try:
                outcomes[i] = _follow(processes[i], lambda line: shown.add(i, line))
            except LoadError as error:
                outcomes[i] = error
            finally:
                ended.release()

        ended = threading.Semaphore(0)
        threads = [threading.Thread(target=follow, args=(i,)) for i in range(len(specs))]
        for thread in threads:
            thread.start()
        _wait(ended, processes, shown)
        for thread in threads:
            thread.join()
    results = []
    for outcome in outcomes:
        if isinstance(outcome, LoadError):
            raise outcome
        results.append(outcome)
    return results


def _wait(ended: threading.Semaphore, processes: Sequence[subprocess.Popen[bytes]], shown: _Together) -> None:
    """Wait until each process has ended; at Ctrl-C those who measure are told to end with what they have.

    By a semaphore, since an interrupted `Thread.join` takes a running thread for an ended one before Python 3.13.
    """
    told, left = False, len(processes)
    while left:
        try:
            ended.acquire()
            left -= 1
        except KeyboardInterrupt:
            if told or not shown.measuring:
                raise
            told = True
            for process in processes:
                process.send_signal(signal.SIGINT)


class _Together:
    """The progress of several processes as one: the requests added, the share of the slowest."""

    def __init__(self, progress: Progress | None, count: int) -> None:
        self._progress = progress
        self._lines: list[ProgressLine | None] = [None] * count
        self._lock = threading.Lock()

    @property
    def measuring(self) -> bool:
        """Whether all of them have come so far."""
        return all(line is not None and line.phase == "measure" for line in self._lines)

    def add(self, i: int, line: ProgressLine) -> None:
        with self._lock:
            self._lines[i] = line
            alike = [seen for seen in self._lines if seen is not None and seen.phase == line.phase]
            if self._progress:
                self._progress(line.phase, min(seen.done for seen in alike), sum(seen.requests for seen in alike))


@contextlib.contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "kache.load.worker"]
    # In a process group of its own: Ctrl-C is told it by us (`_join`), not by the terminal as well.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + b"\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LoadError(f"a process of the generator ended with status {process.wait()}")
    return line


def _failure(line: FailureLine) -> LoadError:
    return (UnreachableError if line.unreachable else LoadError)(line.message)


def _hear(process: subprocess.Popen[bytes], word: str) -> None:
    line = _line(process)
    if line.strip() != msgspec.json.encode(word):
        heard = msgspec.json.decode(line, type=_HEARD)
        raise _failure(heard) if isinstance(heard, FailureLine) else LoadError(f"unexpected line: {line!r}")


def _follow(process: subprocess.Popen[bytes], show: Any) -> WorkerResult:
    while True:
        heard = msgspec.json.decode(_line(process), type=_HEARD)
        if isinstance(heard, ResultLine):
            return heard.result
        if isinstance(heard, FailureLine):
            raise _failure(heard)
        show(heard)


# Figures ---------------------------------------------------------------------------------------------------------


def _latency(buckets: Iterable[Sequence[tuple[int, int]]], slowest: int) -> Latency:
    """Percentiles of histograms added up: the highest latency a percentile's bucket stands for, at most the maximum."""
    histogram = _histogram()
    total = 0
    for part in buckets:
        for value, count in part:
            histogram.record_value(min(value, _HIGHEST_NS), count)
            total += value * count
    count = histogram.get_total_count()
    if not count:
        return Latency()
    values = histogram.get_percentile_to_value_dict([50.0, 95.0, 99.0, 99.9])
    p50, p95, p99, p999 = (min(values[p], slowest) / 1e6 for p in (50.0, 95.0, 99.0, 99.9))
    lowest = histogram.get_min_value() / 1e6
    return Latency(
        count=count, mean=total / count / 1e6, min=lowest, p50=p50, p95=p95, p99=p99, p999=p999, max=slowest / 1e6
    )


def _combine(spec: LoadSpec, results: Sequence[WorkerResult]) -> LoadResult:
    commands = {}
    for name in results[0].commands:
        parts = [result.commands[name] for result in results]
        commands[name] = CommandResult(
            requests=sum(part.requests for part in parts),
            errors=sum(part.errors for part in parts),
            unexpected=sum(part.unexpected for part in parts),
            hits=sum(part.hits for part in parts),
            misses=sum(part.misses for part in parts),
            mismatches=sum(part.mismatches for part in parts),
            latency=_latency((part.buckets for part in parts), max(part.slowest for part in parts)),
        )
    every = [counts for result in results for counts in result.commands.values()]
    cpu = max(result.cpu_seconds / result.seconds for result in results)
    result = LoadResult(
        spec=msgspec.structs.replace(spec, password=None),
        seconds=max(result.seconds for result in results),
        requests=sum(result.requests for result in results),
        throughput=sum(result.requests / result.seconds for result in results),
        errors=sum(command.errors for command in commands.values()),
        unexpected=sum(command.unexpected for command in commands.values()),
        hits=sum(command.hits for command in commands.values()),
        misses=sum(command.misses for command in commands.values()),
        mismatches=sum(command.mismatches for command in commands.values()),
        lost=sum(result.lost for result in results),
        disconnects=sum(result.disconnects for result in results),
        unanswered=sum(result.unanswered for result in results),
        error_texts=sorted({text for result in results for text in result.error_texts})[:8],
        bytes_in=sum(result.bytes_in for result in results),
        bytes_out=sum(result.bytes_out for result in results),
        latency=_latency((counts.buckets for counts in every), max(counts.slowest for counts in every)),
        commands=commands,
        generator_cpu=cpu,
        generator_cpu_seconds=sum(result.cpu_seconds for result in results),
        generator_limited=cpu > _LIMITED,
        latest=max(result.latest for result in results) / 1e6,
        interrupted=any(result.interrupted for result in results),
        notes=[],
    )
    return msgspec.structs.replace(result, notes=_notes(result, any(part.stalled for part in results)))


def _notes(result: LoadResult, stalled: bool) -> list[str]:
    """What would mislead a reader who saw only the figures."""
    spec, notes = result.spec, []
    if result.interrupted:
        wanted = f"{spec.requests:,} requests" if spec.requests else f"{spec.seconds:g} s"
        notes.append(f"interrupted after {result.seconds:.1f} s; {wanted} were wanted")
    if result.generator_limited:
        notes.append(
            f"the generator was the bottleneck ({result.generator_cpu:.0%} of a core): the server can do more; "
            f"use more --processes than {spec.processes}"
        )
    if spec.rate is not None and result.throughput < 0.99 * spec.rate:
        notes.append(
            f"the server kept up with {result.throughput / spec.rate:.1%} of the offered rate: "
            "latencies include the growing wait"
        )
    if spec.rate is not None and result.latest > 5:
        notes.append(f"the generator itself sent up to {result.latest:.1f} ms late: latencies include that")
    if stalled:
        notes.append(f"no reply for {spec.timeout:g} s: the run was cut short")
    if result.errors:
        notes.append(f"{result.errors:,} error replies: {'; '.join(result.error_texts)}")
    elif result.error_texts:
        notes.append("; ".join(result.error_texts))
    if result.unexpected:
        notes.append(f"{result.unexpected:,} replies were not of the type that the command answers with")
    if result.mismatches:
        notes.append(f"{result.mismatches:,} values were not what this load stores under their keys")
    if result.disconnects:
        notes.append(f"{result.disconnects:,} connections broke with {result.lost:,} requests in flight")
    if result.unanswered:
        notes.append(f"{result.unanswered:,} requests were not answered within {spec.timeout:g} s after the end")
    return notes


def summary(result: LoadResult) -> str:
    """The result for a person, a few lines; times in milliseconds."""
    spec = result.spec
    head = (
        f"{spec.commands} over {spec.protocol}, {spec.connections} connections, pipeline {spec.pipeline}, "
        f"{spec.value_size} B values, {spec.keys:,} keys {spec.distribution}"
    )
    rate = f", offered {spec.rate:,.0f}/s" if spec.rate is not None else ""
    lines = [
        head,
        f"{result.throughput:,.0f} requests/s  ({result.requests:,} in {result.seconds:.2f} s{rate})",
        "",
        f"{'ms':<10}{'p50':>9}{'p95':>9}{'p99':>9}{'p99.9':>9}{'max':>9}{'requests':>13}",
    ]
    rows = {"all": result.latency}
    if len(result.commands) > 1:
        rows |= {name: command.latency for name, command in result.commands.items()}
    for name, latency in rows.items():
        times = (latency.p50, latency.p95, latency.p99, latency.p999, latency.max)
        lines.append(f"{name:<10}" + "".join(f"{time:>9.3f}" for time in times) + f"{latency.count:>13,}")
    lines.append("")
    looked = result.hits + result.misses
    if looked:
        lines.append(f"hits {result.hits:,}  misses {result.misses:,}  ({result.hits / looked:.1%} hits)")
    megabytes = f"sent {result.bytes_out / 1e6:,.1f} MB, received {result.bytes_in / 1e6:,.1f} MB"
    lines.append(f"{megabytes}; generator at {result.generator_cpu:.0%} of a core")
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines)
