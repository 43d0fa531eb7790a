"""Celery with Redis as broker and result backend: a worker's tasks and results, and its events, which travel by pub/sub.

Run: python celery_events.py PORT. Waiting for a result is SUBSCRIBE on the name of the result; storing it is SETEX and
PUBLISH in one MULTI. Events are fanned out by PUBLISH and PSUBSCRIBE.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import celery
from celery.contrib.testing.worker import start_worker

URL = f"redis://127.0.0.1:{sys.argv[1]}/0"
SECONDS = 60
TASKS = 20
app = celery.Celery("probe", broker=URL, backend=URL)
app.conf.update(worker_send_task_events=True, task_send_sent_event=True, broker_connection_retry_on_startup=True)


@app.task(name="probe.add")  # type: ignore[misc]  # celery has no types
def add(left: int, right: int) -> int:
    return left + right


def main() -> None:
    seen: list[dict[str, Any]] = []

    def note(event: dict[str, Any]) -> None:
        seen.append(event)
        if sum(each["type"] == "task-succeeded" for each in seen) >= TASKS:
            receiver.should_stop = True

    connection = app.connection()
    receiver = app.events.Receiver(connection, handlers={"*": note})

    def capture() -> None:
        # One capture: a new one for each event would subscribe anew, and miss what is sent in between.
        with connection:
            receiver.capture(timeout=SECONDS, wakeup=False)

    listener = threading.Thread(target=capture, daemon=True)
    listener.start()
    with app.connection() as asking:
        client = asking.default_channel.client
        limit = time.monotonic() + SECONDS
        while not client.pubsub_numpat() and not client.pubsub_channels():
            assert time.monotonic() < limit, "nobody listens to events"
            time.sleep(0.01)
    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=4, without_heartbeat=False):
        results = [add.delay(number, 1) for number in range(TASKS)]
        assert [result.get(timeout=SECONDS) for result in results] == [number + 1 for number in range(TASKS)]
        chord = celery.chord([add.si(number, 1) for number in range(10)], total.s())()
        assert chord.get(timeout=SECONDS) == 55
        listener.join(SECONDS)
    kinds = {each["type"] for each in seen}
    assert {"task-sent", "task-received", "task-started", "task-succeeded"} <= kinds, kinds
    print(f"Celery {celery.__version__} events and results: fine")


@app.task(name="probe.total")  # type: ignore[misc]  # celery has no types
def total(numbers: list[int]) -> int:
    return sum(numbers)


main()
