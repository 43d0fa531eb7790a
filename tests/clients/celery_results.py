"""Celery's result backend: storing, reading, groups and forgetting. Run: python celery_results.py PORT; KACHE_LOGIN ("user:password@") says as whom.

Storing a result is SETEX and PUBLISH in one MULTI, so that this needs PUBLISH as well; without it the backend is driven by
what it sends beside that.
"""

from __future__ import annotations

import os
import sys
import uuid

import celery
from celery import states


def main() -> None:
    login = os.environ.get("KACHE_LOGIN", "")
    app = celery.Celery("t", backend=f"redis://{login}127.0.0.1:{sys.argv[1]}/0", broker="memory://")
    backend = app.backend
    task = uuid.uuid4().hex
    key = backend.get_key_for_task(task)
    with backend.client.pipeline() as pipeline:
        pipeline.setex(
            key, 100, backend.encode({"status": states.SUCCESS, "result": 7, "traceback": None, "children": []})
        )
        pipeline.expire(key, 100)
        assert pipeline.execute() == [True, True]
    assert backend.get_state(task) == states.SUCCESS and backend.get_result(task) == 7
    chord = backend.get_key_for_group(uuid.uuid4().hex, ".j")
    with backend.client.pipeline() as pipeline:
        pipeline.zadd(chord, {b"result": 1}).zcount(chord, "-inf", "+inf").get(chord + b".t").get(chord + b".s")
        assert pipeline.expire(chord, 100).execute()[:2] == [1, 1]
    backend.delete(key)
    assert backend.get(key) is None
    print(f"Celery {celery.__version__} results: fine")


main()
