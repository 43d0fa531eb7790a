"""Celery over TLS: results by the backend, tasks published to the broker, and a worker, whose broker releases a lock by a script.

Run: python celery_over_tls.py PORT CA CERT KEY, with KACHE_LOGIN, such as "jobs:secret@", as that user.
"""

from __future__ import annotations

import os
import ssl
import sys
import uuid
from urllib.parse import quote

import celery
from celery import states
from celery.contrib.testing.worker import start_worker


def main() -> None:
    port, ca, cert, key = sys.argv[1:5]
    options = f"ssl_cert_reqs=required&ssl_ca_certs={quote(ca)}&ssl_certfile={quote(cert)}&ssl_keyfile={quote(key)}"
    url = f"rediss://{os.environ.get('KACHE_LOGIN', '')}localhost:{port}/0?{options}"
    files = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}
    app = celery.Celery("tls", broker=url, backend=url)
    app.conf.update(broker_use_ssl=files, redis_backend_use_ssl=files, worker_hijack_root_logger=False)

    @app.task  # type: ignore[untyped-decorator]  # celery has no types
    def add(a: int, b: int) -> int:
        return a + b

    backend = app.backend
    for number in range(20):
        task = uuid.uuid4().hex
        backend.store_result(task, number, states.SUCCESS)
        assert backend.get_state(task) == states.SUCCESS and backend.get_result(task) == number
        backend.forget(task)
    results = [add.delay(number, 1) for number in range(20)]
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="WARNING"):
        assert [result.get(timeout=60) for result in results] == list(range(1, 21))
    print(f"Celery {celery.__version__} over TLS: fine")


main()
