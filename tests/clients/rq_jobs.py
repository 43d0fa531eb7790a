"""rq as an application uses it: jobs on several queues, run by a worker that waits for them. Run: python rq_jobs.py PORT.

Results are kept in streams. What needs pub/sub and scripts is in rq_workers.py, with a newer rq.
"""

from __future__ import annotations

import sys
import threading
import time

import redis
import rq
from rq.job import JobStatus
from rq.results import Result
from rq.timeouts import TimerDeathPenalty


class ThreadWorker(rq.SimpleWorker):
    """Runs jobs in its own thread: no forks, no signals."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        pass

    def subscribe(self) -> None:
        """No pub/sub: nobody sends it commands."""

    def unsubscribe(self) -> None:
        """Nor that."""


def main() -> None:
    client = redis.Redis(port=int(sys.argv[1]))
    client.flushall()
    queues = [rq.Queue(name, connection=client) for name in ("high", "default", "low")]
    jobs = [queue.enqueue(pow, 2, number) for number in range(10) for queue in queues]
    bad = queues[0].enqueue(divmod, 1, 0)
    worker = ThreadWorker(queues, connection=client)
    assert worker.work(burst=True, logging_level="WARNING")
    assert [job.return_value() for job in jobs] == [2**number for number in range(10) for _ in queues]
    assert all(client.type(f"rq:results:{job.id}") == b"stream" for job in [*jobs, bad])
    assert [result.type for result in jobs[3].results()] == [Result.Type.SUCCESSFUL]
    assert "ZeroDivisionError" in str(bad.latest_result().exc_string)
    assert bad.get_status() == JobStatus.FAILED and len(queues[0].failed_job_registry) == 1
    assert all(len(queue) == 0 for queue in queues)
    # A worker that waits is served as soon as there is something, from whichever queue.
    waiting = threading.Thread(
        target=lambda: ThreadWorker(queues, connection=client).work(max_jobs=1, logging_level="WARNING")
    )
    waiting.start()
    limit = time.monotonic() + 60
    while client.info("clients")["blocked_clients"] == 0:
        assert time.monotonic() < limit, "the worker does not wait"
        time.sleep(0.01)
    job = queues[2].enqueue(abs, -5)
    waiting.join(60)
    assert job.return_value() == 5
    print(f"rq {rq.VERSION}: fine")


main()
