"""Classes of keyspace notifications, as `notify-keyspace-events` names them: a letter each.

Pure functions over text. What each class is of stands in `CLASSES`; which event belongs to which is said where the events
are made (shard/engine/effects.pyx).
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALL", "CLASSES", "parse_events"]

CLASSES: Final = {
    "g": "commands on keys of any type: DEL, EXPIRE, RENAME …",
    "$": "strings",
    "l": "lists",
    "s": "sets",
    "h": "hashes",
    "z": "sorted sets",
    "x": "keys that expire",
    "e": "keys that are evicted",
    "t": "streams",
    "d": "modules",
    "n": "keys that are new",
    "K": "on the channel of the key: __keyspace@<db>__:<key>",
    "E": "on the channel of the event: __keyevent@<db>__:<event>",
    "m": "keys that were read and are not there",
}
"""In the order in which they are shown."""

ALL: Final = "g$lshzxetd"
"""What ``A`` stands for."""


def parse_events(text: str) -> str:
    """The classes that `text` names, in one order, ``A`` for all it stands for; raises ValueError.

    ``n`` is shown beside ``A``, too, where a real server forgets it: what is written into the file has to say it.
    """
    wanted = set(text.replace("A", ALL))
    if wanted - CLASSES.keys():
        raise ValueError(text)
    shown = "".join(letter for letter in CLASSES if letter in wanted)
    return shown.replace(ALL, "A")
