"""The commands, a function each, and what several of them share. Every module here is imported by `registry.load`."""
