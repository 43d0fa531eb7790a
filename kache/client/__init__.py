"""The clients: `Client` blocks, `AsyncClient` is awaited. Both speak the binary protocol.

blocking, asynchronous      sockets and pools; one exchange at a time on a connection
commands, async_commands    the typed methods, one list twice
pipeline                    commands collected first and sent together
codec                       requests and replies as functions over bytes
options, errors             what may be asked for, and what a failure means
"""
