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
    ready = [threading.Event() for _ in range(CONSUMERS)]

    def consume(number: int) -> None:
        with kombu.Connection(url) as connection:
            queue = kombu.Queue(f"listener-{number}", exchange, exclusive=True, auto_delete=True)

            def take(body: dict[str, int], message: kombu.Message) -> None:
                received[number].append(body["number"])
                message.ack()

            with connection.Consumer([queue], callbacks=[take]):
                limit = time.monotonic() + SECONDS
                while len(received[number]) < MESSAGES and time.monotonic() < limit:
                    ready[number].set()
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        pass

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(CONSUMERS)]
    for thread in threads:
        thread.start()
    for event in ready:
        assert event.wait(SECONDS)
    with kombu.Connection(url) as connection, connection.Producer() as producer:
        client = connection.default_channel.client
        limit = time.monotonic() + SECONDS
        while len(client.client_list(_type="pubsub")) < CONSUMERS and time.monotonic() < limit:
            time.sleep(0.01)
        for number in range(MESSAGES):
            # A channel of Kombu knows only from its own declarations that an exchange fans out; otherwise it looks for queues.
            producer.publish({"number": number}, exchange=exchange, routing_key="", declare=[exchange])
    for thread in threads:
        thread.join(SECONDS)
    assert received == [list(range(MESSAGES))] * CONSUMERS, [len(each) for each in received]
    print(f"kombu {kombu.__version__} fanout: fine")


main()
