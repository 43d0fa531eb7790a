"""A message for many: they are written to some at a time, each gets everything in order, and others are served between."""

from __future__ import annotations

import asyncio

from test_mux import Client, ask, cluster, replies, resp, run

MANY = 400
"""Several times what is written to in one batch."""


async def subscribed(client: Client, *channels: str) -> None:
    client[1].write(resp("SUBSCRIBE", *channels))
    await replies(client[0], len(channels))


def test_it_reaches_all_of_them_in_several_batches() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            clients = [await running.connect() for _ in range(MANY)]
            for client in clients:
                await subscribed(client, "many", "few")
            before = running.router.iterations
            running.shards[0].publish(b"many", b"first")
            for reader, _ in clients:
                assert await replies(reader, 1) == [[b"message", b"many", b"first"]]
            assert running.router.iterations - before >= MANY // 64

    run(test, 30)


def test_order_holds_for_each_and_who_goes_meanwhile_hurts_nobody() -> None:
    async def test() -> None:
        async with cluster(1) as running:
            clients = [await running.connect() for _ in range(MANY)]
            for client in clients:
                await subscribed(client, "many")
            other = await running.connect()
            gone, stay = clients[::7], [client for number, client in enumerate(clients) if number % 7]
            for number in range(20):
                running.shards[0].publish(b"many", b"%d" % number)
                if number == 10:
                    for _, writer in gone:
                        writer.write(resp("QUIT"))
                # Subscribers ask for something themselves, too.
                stay[number][1].write(resp("PING", f"from {number}"))
                assert await ask(other, "ECHO", f"{number}") == b"%d" % number
                await asyncio.sleep(0)
            for place, (reader, _) in enumerate(stay):
                found = await replies(reader, 21 if place < 20 else 20)
                messages = [each for each in found if each[0] == b"message"]
                assert messages == [[b"message", b"many", b"%d" % number] for number in range(20)]
            assert running.router.output_bytes == 0

    run(test, 30)
