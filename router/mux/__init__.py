"""The compiled data path of a router; `multiplexer.pyx` draws it and names the parts that it is made of.

    multiplexer   clients, backends and the order of replies between them: one unit, since its parts call one another for
                  every frame; `multiplexer.pxd` declares what each part is to the others
    table         the command table as a C hash table, and the texts of refusals that name a command
    slot_map      which shard owns which slot
    limits        settings as C numbers

Python in the router (commands/, scatter/, main.py) uses `Router`, `Session` and `Split`, as multiplexer.pyi has them.
"""
