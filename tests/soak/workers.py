"""What soaks with many clients at work share: what they find wrong, their lives, and how they are cut off.

run = SharedRun(cluster, seed); run.complain("…")
class Consumer(Worker):  def live(self, connection): …      # again and again, each time with a connection of its own
cut_off(connection)                                          # reset: what is on its way to it is lost
"""

from __future__ import annotations

import random
import socket
import struct
import threading

from cluster import Cluster, Connection

__all__ = ["SharedRun", "Worker", "cut_off", "told"]


class SharedRun:
    """What all workers of a soak know: the cluster, when to stop, and what was wrong so far."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.seed = seed
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.wrong: list[str] = []

    def complain(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)


class Worker(threading.Thread):
    """One client; `live` is one life of its connection. Whatever it raises is wrong."""

    def __init__(self, run: SharedRun, title: str) -> None:
        super().__init__()
        self.of = run
        self.title = title
        self.dice = random.Random(f"{run.seed}:{title}")

    def live(self, connection: Connection) -> None:
        raise NotImplementedError

    def is_over(self) -> bool:
        """Whether it need not live again."""
        return self.of.stop.is_set()

    def run(self) -> None:
        try:
            while not self.is_over():
                with self.of.cluster.connect() as connection:
                    self.live(connection)
        except Exception as error:
            self.of.complain(f"{self.title}: {type(error).__name__}: {error}")


def cut_off(connection: Connection) -> None:
    """Closing it from here on resets it."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def told(run: SharedRun, figures: str) -> int:
    """Prints the figures and what was wrong, tracebacks in the log included; the exit status."""
    tracebacks = run.cluster.log().count("Traceback")
    if tracebacks:
        run.complain(f"{tracebacks} tracebacks in the log")
    print(figures)
    for text in run.wrong[:20]:
        print("WRONG:", text)
    return 1 if run.wrong else 0
