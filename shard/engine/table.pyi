"""The hash table has nothing for Python (see table.pxd)."""
