"""The compiled core of a shard: its data, the one execution point, the links to the routers. From the bottom up:

    blocks      the heap that blocks of memory lie in: slabs, pages, what goes back to the system
    memory      blocks as the structures ask for them, malloc's tuning, the keyed hash, chance
    entry       one key with its value, or a field, or a member: one block (declarations only, all of it inline)
    numbers     numbers and byte strings as images and the log write them (declarations only)
    heap        deadlines
    queues      the small queue and the ghosts of S3-FIFO
    miniature   what other policies and sizes of memory would miss, of a sample of the keys; on simulated_lru.pxi and two more
    table       the hash table of every slot, hash and set
    packed      the form of small collections: bytes in the block of their key's entry
    listvalue   ListValue: the value of a longer list, on chunks.pxi
    fields      FieldTable: the value of a larger hash or set
    zset        ZSet: the value of a larger sorted set, on ranks.pxi
    stream_chunks  the entries of a stream, as they lie in memory
    stream      Stream: the value of a stream: its entries, ranges, trimming, groups
    consumer_groups  its groups, in Python: what was delivered, to whom, and how often
    sketch      which keys are used most
    effects     the sink that every change is told to: observers, and the records of a log
    engine      the databases, the mutators, the compiled commands, execution, links; engine.pyx names its parts
    hll         the HyperLogLog's representation

Each compiled module has its declarations in a `.pxd`: what every command uses is inline there, and only what grows,
splits or joins is a call from one module to another.
"""
