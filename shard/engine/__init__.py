"""The compiled core of a shard; `engine.pyx` draws it. `hll` is the HyperLogLog's representation."""
