"""Kombu's broker as Celery uses it: messages on several queues with priorities, acknowledged, given back, and fanned out.

Run: python kombu_queues.py PORT. Consuming is BRPOP over the queues of every priority; an unacknowledged message is kept in
a hash and a sorted set, changed with MULTI … EXEC.
"""

from __future__ import annotations

import sys
import threading
import time

import kombu


def main() -> None:
    url = f"redis://127.0.0.1:{sys.argv[1]}/0"
    exchange = kombu.Exchange("tasks", type="direct")
    queues = [kombu.Queue(f"queue{number}", exchange, routing_key=f"queue{number}") for number in range(4)]
    options = {"visibility_timeout": 3600, "priority_steps": [0, 3, 6, 9]}
    with kombu.Connection(url, transport_options=options) as connection:
        for queue in queues:
            queue(connection.default_channel).declare()
        received: list[tuple[str, int]] = []
        rejected: set[int] = set()

        def take(body: dict[str, int], message: kombu.Message) -> None:
            if body["number"] % 10 == 3 and body["number"] not in rejected:
                rejected.add(body["number"])
                message.requeue()
                return
            received.append((message.delivery_info["routing_key"], body["number"]))
            message.ack()

        def produce() -> None:
            with kombu.Connection(url, transport_options=options) as other, other.Producer() as producer:
                for number in range(200):
                    producer.publish(
                        {"number": number},
                        exchange=exchange,
                        routing_key=f"queue{number % 4}",
                        priority=(0, 3, 6, 9)[number % 3],
                    )

        threading.Thread(target=produce).start()
        with connection.Consumer(queues, callbacks=[take]):
            limit = time.monotonic() + 60
            while len(received) < 200 and time.monotonic() < limit:
                try:
                    connection.drain_events(timeout=2)
                except TimeoutError:
                    pass
        assert sorted(number for _, number in received) == list(range(200)), len(received)
        assert all(queue == f"queue{number % 4}" for queue, number in received)
        assert rejected == set(range(3, 200, 10))
        client = connection.default_channel.client
        assert client.hlen("unacked") == 0 and client.zcard("unacked_index") == 0
        assert all(client.llen(f"queue{number}") == 0 for number in range(4))
        # What a consumer that went away had not acknowledged comes again.
        channel = connection.channel()
        with connection.Producer() as producer:
            producer.publish({"number": 1000}, exchange=exchange, routing_key="queue1")
        message = queues[1](channel).get()
        assert message is not None and client.hlen("unacked") == 1
        channel.close()
        again = queues[1](connection.channel()).get()
        assert again is not None and again.payload == {"number": 1000}
        again.ack()
        assert client.hlen("unacked") == 0
    print(f"kombu {kombu.__version__}: fine")


main()
