"""rq whole: a worker of its own with its scheduler, which runs, retries, repeats, delays and stops jobs.

Run: python rq_workers.py PORT SHARDS. The scheduler's locks, unique jobs and limits of rates are scripts, commands to a worker
travel by pub/sub, results are kept in streams. Limits of rates want one shard: their script finds its keys on its way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import redis
import rq
from rq.command import send_shutdown_command, send_stop_job_command
from rq.exceptions import DuplicateJobError
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimit
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

SECONDS = 60


def square(number: int) -> int:
    return number * number


def add(left: int) -> int:
    """What the job before has returned, and `left`."""
    job = rq.get_current_job()
    assert job is not None and job.dependency is not None
    return left + int(job.dependency.return_value())


def stumble(name: str, times: int) -> int:
    """Fails `times` times; how often it was run in all."""
    job = rq.get_current_job()
    assert job is not None
    runs = job.connection.incr(f"runs:{name}")
    if runs <= times:
        raise RuntimeError("on purpose")
    return int(runs)


def sleep_long() -> None:
    time.sleep(600)


def until(what: Callable[[], bool], text: str) -> None:
    limit = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < limit, text
        time.sleep(0.02)


def finished(*jobs: Job) -> None:
    """Returns when all have succeeded."""
    until(lambda: {job.get_status() for job in jobs} == {JobStatus.FINISHED}, f"not done: {jobs}")


def plain(client: redis.Redis, queues: list[rq.Queue]) -> None:
    """Many jobs, one behind another, one that is there once."""
    jobs = [queue.enqueue("rq_workers.square", number) for number in range(20) for queue in queues]
    first = queues[0].enqueue("rq_workers.square", 5)
    second = queues[1].enqueue("rq_workers.add", 4, depends_on=first)
    queues[0].enqueue_in(timedelta(seconds=1000), "rq_workers.square", 1, job_id="one", unique=True)
    for again in (
        lambda: queues[0].enqueue("rq_workers.square", 1, job_id="one", unique=True),
        lambda: queues[0].enqueue_in(timedelta(seconds=1), "rq_workers.square", 1, job_id="one", unique=True),
    ):
        try:
            again()
            raise AssertionError("a second job of that name was taken")
        except DuplicateJobError:
            pass
    finished(*jobs, first, second)
    assert [job.return_value() for job in jobs] == [number * number for number in range(20) for _ in queues]
    assert second.return_value() == 29
    assert client.type(f"rq:results:{first.id}") == b"stream"
    scheduled = ScheduledJobRegistry(queue=queues[0])
    assert "one" in scheduled
    scheduled.remove("one", delete_job=True)
    once = queues[0].enqueue("rq_workers.square", 3, job_id="one", unique=True)
    finished(once)


def scheduled(client: redis.Redis, queues: list[rq.Queue]) -> None:
    """Jobs that come later, once or again, and those that failed."""
    late = queues[1].enqueue_in(timedelta(seconds=1), "rq_workers.square", 7)
    assert late.get_status() == JobStatus.SCHEDULED
    retried = queues[0].enqueue("rq_workers.stumble", "retried", 2, retry=rq.Retry(max=2, interval=1))
    repeated = queues[1].enqueue("rq_workers.stumble", "repeated", 0, repeat=rq.Repeat(times=2, interval=1))
    bad = queues[0].enqueue("rq_workers.stumble", "bad", 1)
    until(lambda: bad.get_status() == JobStatus.FAILED, "it has not failed")
    failed = FailedJobRegistry(queue=queues[0])
    assert bad.id in failed and "on purpose" in str(bad.latest_result().exc_string)
    failed.requeue(bad.id)
    finished(late, retried, bad)
    assert late.return_value() == 49 and retried.return_value() == 3 and bad.return_value() == 2
    assert len(failed) == 0
    until(lambda: client.get("runs:repeated") == b"3", "it was not repeated")
    finished(repeated)


def limited(client: redis.Redis, queues: list[rq.Queue]) -> None:
    """At most one of these at a time."""
    one = RateLimit("narrow", 1)
    jobs = [queues[0].enqueue("rq_workers.square", number, rate_limit=one) for number in range(5)]
    finished(*jobs)
    until(lambda: not client.exists("rq:rl:narrow:allowed"), "a place is left")


def main() -> None:
    port, shards = int(sys.argv[1]), int(sys.argv[2])
    client = redis.Redis(port=port)
    client.flushall()
    queues = [rq.Queue(name, connection=client) for name in ("high", "low")]
    command = [sys.executable, "-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{port}/0", "--name", "worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])}
    worker = subprocess.Popen(
        [*command, "--with-scheduler", "--logging_level", "WARNING", "high", "low"], env=environment
    )
    try:
        plain(client, queues)
        scheduled(client, queues)
        if shards == 1:
            limited(client, queues)
        long = queues[0].enqueue("rq_workers.sleep_long")
        until(lambda: long.get_status() == JobStatus.STARTED, "it does not begin")
        until(lambda: client.pubsub_numsub("rq:pubsub:worker")[0][1] == 1, "the worker does not listen")
        send_stop_job_command(client, long.id)
        until(lambda: long.get_status() == JobStatus.STOPPED, "it does not stop")
        send_shutdown_command(client, "worker")
        assert worker.wait(SECONDS) == 0
        assert not client.exists("rq:scheduler-lock:high", "rq:scheduler-lock:low"), "the scheduler kept its locks"
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait(10)
    print(f"rq {rq.VERSION}, a worker with its scheduler: fine")


if __name__ == "__main__":
    main()
