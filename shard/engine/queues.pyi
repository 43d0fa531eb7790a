"""The small queue and the ghosts have nothing for Python (see queues.pxd)."""
