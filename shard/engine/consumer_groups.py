"""The consumer groups of a stream: who has which entries, delivered and not yet acknowledged.

    Stream.groups ─► Group ─► pending    {id: Pending}, for whoever knows the id
                          ├─► order      the same ids in order: XPENDING, XAUTOCLAIM go through it from anywhere
                          └─► consumers  {name: Consumer} ─► order: those of this consumer, for its history

Ids are ints (``ms << 64 | seq``). Most entries are acknowledged soon and nobody asks for their order meanwhile, so what was
delivered last waits in a list (`Order.arrivals`) and is sorted in when somebody asks, or when it is much.

Owned by the value of the stream and changed by its mutators alone (streams.pxi), which account `memory`: an estimate,
within a tenth of what is allocated. Nothing here refers back to what owns it, so everything goes by its last reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from sortedcontainers import SortedList

from .stream import Pending, pend, size_of_pending, still_pending, unpend

__all__ = ["Consumer", "Group", "Order"]

MOST_ARRIVALS: Final = 1024
"""What waits to be sorted in: so many take half a millisecond."""
SPARE_ARRIVALS: Final = 16
"""How many more than twice what is pending may wait: those that were acknowledged are kept so long."""

IN_GROUP: Final = 1
IN_CONSUMER: Final = 2

GROUP_BYTES: Final = 1100
"""A group with its name, its order and the tables, empty."""


class Order:
    """The ids of what is pending, in order; `flag` is what a Pending says of those that are sorted in."""

    __slots__ = ("arrivals", "flag", "ids")

    def __init__(self, flag: int) -> None:
        self.flag = flag
        self.ids: SortedList[int] | None = None
        self.arrivals: list[Pending] = []

    def add(self, fresh: list[Pending], living: int) -> None:
        """They belong here from now on, among so many."""
        self.arrivals += fresh
        if len(self.arrivals) > min(2 * living + SPARE_ARRIVALS, MOST_ARRIVALS):
            self.arrivals = self.fresh()
            if len(self.arrivals) > min(living + SPARE_ARRIVALS, MOST_ARRIVALS // 2):
                self.settle()

    def remove(self, pending: Pending) -> None:
        """It does not any more. To be called before its consumer changes, or before it is gone."""
        if pending.placed & self.flag:
            pending.placed &= ~self.flag
            assert self.ids is not None
            self.ids.remove(cast(int, pending.id))

    def fresh(self) -> list[Pending]:
        """What of all that arrived here is still to be sorted in."""
        return still_pending(self.arrivals, self.flag, None)

    def settle(self) -> SortedList[int]:
        """Every id that belongs here, in order."""
        if self.ids is None:
            self.ids = SortedList()
        if self.arrivals:
            ids = []
            for pending in self.fresh():
                # What moved away and came back has arrived twice.
                if not pending.placed & self.flag:
                    pending.placed |= self.flag
                    ids.append(cast(int, pending.id))
            self.arrivals.clear()
            self.ids.update(ids)
        return self.ids

    def last(self, count: int) -> list[int]:
        """The ids that come last, at most so many."""
        return list(self.settle()[-count:])

    def from_id(self, first: int) -> Iterator[int]:
        """The ids from `first` on. Nothing may be taken away meanwhile."""
        return self.settle().irange(first)


class Consumer(Order):
    """One consumer of a group; `order` of what it has is the consumer itself."""

    __slots__ = ("active", "count", "name", "seen")

    def __init__(self, name: bytes, seen: int, active: int) -> None:
        super().__init__(IN_CONSUMER)
        self.name = name
        self.seen = seen
        """When it last asked for something, unix ms."""
        self.active = active
        """When it last got something; -1: never."""
        self.count = 0
        """How many entries it has."""

    def fresh(self) -> list[Pending]:
        """The same, of those that did not go to another consumer meanwhile."""
        return still_pending(self.arrivals, self.flag, self.name)


class Group:
    """One group: how far it has read, and what its consumers have."""

    __slots__ = ("consumers", "last", "name", "order", "pending", "read", "serial", "text_bytes")

    def __init__(self, name: bytes, last: int, read: int, serial: int) -> None:
        self.name = name
        self.last = last
        """The greatest id that was delivered."""
        self.read = read
        """How many entries were, counted from the first there ever was; -1: unknown."""
        self.serial = serial
        """Groups of one stream are numbered in the order of their making."""
        self.pending: dict[int, Pending] = {}
        self.order = Order(IN_GROUP)
        self.consumers: dict[bytes, Consumer] = {}
        self.text_bytes = len(name)

    def __len__(self) -> int:
        """How much is pending. A group without anything is one all the same."""
        return len(self.pending)

    @property
    def memory(self) -> int:
        """Bytes that it takes, about. O(1)."""
        return GROUP_BYTES + self.text_bytes + size_of_pending(self.pending, self.consumers)

    # Consumers ------------------------------------------------------------------------------------
    def consumer_put(self, name: bytes, seen: int, active: int) -> bool:
        """Makes the consumer, or says when it was seen; whether it is new."""
        consumer = self.consumers.get(name)
        if consumer is None:
            self.consumers[name] = Consumer(name, seen, active)
            self.text_bytes += 2 * len(name)
            return True
        consumer.seen, consumer.active = seen, active
        return False

    def consumer_drop(self, name: bytes) -> int:
        """Removes the consumer, which is there, with what it has; how many entries that were."""
        consumer = self.consumers.pop(name)
        self.text_bytes -= 2 * len(name)
        ids = list(consumer.settle())
        self.pending_drop(ids, consumer)
        return len(ids)

    def detach_all(self, name: bytes) -> Group | None:
        """What is pending, all of one consumer that is about to be dropped, as a group that is left to free; None when
        others have something, too."""
        consumer = self.consumers[name]
        if consumer.count < len(self.pending):
            return None
        other = Group(self.name, self.last, self.read, self.serial)
        other.consumers = {name: consumer}
        other.pending, self.pending = self.pending, {}
        other.order, self.order = self.order, Order(IN_GROUP)
        self.consumers[name] = Consumer(name, consumer.seen, consumer.active)
        return other

    # What is pending ------------------------------------------------------------------------------
    def pending_put(self, ids: list[int], name: bytes, delivered: int, count: int) -> None:
        """The consumer, which is there, has these entries from now on."""
        consumer = self.consumers[name]
        if self.pending.keys().isdisjoint(ids):
            return self._put_new(ids, consumer, delivered, count)
        for number in ids:
            pending = self.pending.get(number)
            if pending is None:
                self._put_new([number], consumer, delivered, count)
                continue
            pending.delivered, pending.count = delivered, count
            if pending.consumer == name:
                continue
            before = self.consumers[pending.consumer]
            before.remove(pending)
            before.count -= 1
            pending.consumer = consumer.name
            consumer.count += 1
            consumer.add([pending], consumer.count)

    def _put_new(self, ids: list[int], consumer: Consumer, delivered: int, count: int) -> None:
        fresh = pend(self.pending, ids, consumer.name, delivered, count)
        self.order.add(fresh, len(self.pending))
        consumer.count += len(fresh)
        consumer.add(fresh, consumer.count)

    def pending_drop(self, ids: list[int], owner: Consumer | None = None) -> int:
        """These entries are pending no more; how many were. `owner`: the consumer, gone already, that has them all."""
        return unpend(self.pending, ids, self.consumers, owner, self.order)

    def bounds(self) -> tuple[int, int] | None:
        """The smallest and the greatest id that is pending, or None."""
        ids = self.order.settle()
        return (ids[0], ids[-1]) if ids else None

    # Whole groups ---------------------------------------------------------------------------------
    def copy(self) -> Group:
        """An independent copy."""
        other = Group(self.name, self.last, self.read, self.serial)
        for name, consumer in self.consumers.items():
            other.consumer_put(name, consumer.seen, consumer.active)
        for number, pending in self.pending.items():
            other.pending_put([number], pending.consumer, pending.delivered, pending.count)
        return other

    def release_some(self, count: int) -> bool:
        """Frees about `count` of what is pending; True while something is left."""
        for consumer in self.consumers.values():
            consumer.arrivals.clear()
        self.order.arrivals.clear()
        return _release(self.order, count) or self._release_rest(count)

    def _release_rest(self, count: int) -> bool:
        for consumer in self.consumers.values():
            if _release(consumer, count):
                return True
        for _ in range(count):
            if not self.pending:
                self.consumers.clear()
                return False
            self.pending.popitem()
        return True

    def check(self) -> None:
        """Asserts every invariant; for tests."""
        found = list(self.order.settle())
        assert found == sorted(self.pending), "an order of other ids"
        assert self.text_bytes == len(self.name) + 2 * sum(map(len, self.consumers))
        for number, pending in self.pending.items():
            assert pending.id == number and pending.placed & IN_GROUP
            assert pending.consumer in self.consumers, "an owner who is gone"
        for name, consumer in self.consumers.items():
            owned = [number for number in found if self.pending[number].consumer == name]
            assert consumer.name == name and consumer.count == len(owned)
            assert list(consumer.settle()) == owned, "a history of other ids"


def _release(order: Order, count: int) -> bool:
    ids = order.ids
    if ids is None:
        return False
    for _ in range(min(count, len(ids))):
        ids.pop()
    return bool(ids)
