"""Kombu's fanout exchange over Redis, which is pub/sub: every consumer gets every message. Run: python kombu_fanout.py PORT."""

from __future__ import annotations

import sys
import threading
import time

import kombu

CONSUMERS, MESSAGES, SECONDS = 5, 50, 60


def main() -> None:
    url = f"redis://127.0.0.1:{sys.argv[1]}/0"
    exchange = kombu.Exchange("broadcast", type="fanout")
    received: list[list[int]] = [[] for _ in range(CONSUMERS)]
    joined = [threading.Event() for _ in range(CONSUMERS)]

    def consume(number: int) -> None:
        with kombu.Connection(url) as connection:
            queue = kombu.Queue(f"listener-{number}", exchange, exclusive=True, auto_delete=True)

            def take(body: dict[str, int], message: kombu.Message) -> None:
                if body["number"] < 0:
                    joined[number].set()
                else:
                    received[number].append(body["number"])
                message.ack()

            with connection.Consumer([queue], callbacks=[take]):
                limit = time.monotonic() + SECONDS
                while len(received[number]) < MESSAGES and time.monotonic() < limit:
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        pass

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(CONSUMERS)]
    for thread in threads:
        thread.start()
    with kombu.Connection(url) as connection, connection.Producer() as producer:

        def publish(number: int) -> None:
            # A channel of Kombu knows only from its own declarations that an exchange fans out; otherwise it looks for queues.
            producer.publish({"number": number}, exchange=exchange, routing_key="", declare=[exchange])

        # A consumer does not say when the server has subscribed it: those that have had something are.
        limit = time.monotonic() + SECONDS
        while not all(event.wait(0.02) for event in joined):
            assert time.monotonic() < limit, "somebody is never subscribed"
            publish(-1)
        for number in range(MESSAGES):
            publish(number)
    for thread in threads:
        thread.join(SECONDS)
    assert received == [list(range(MESSAGES))] * CONSUMERS, [len(each) for each in received]
    print(f"kombu {kombu.__version__} fanout: fine")


main()
