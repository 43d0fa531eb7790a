"""The compiled data path of a router; `multiplexer.pyx` draws it."""
