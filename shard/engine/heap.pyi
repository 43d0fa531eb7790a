"""The heap of deadlines has nothing for Python (see heap.pxd)."""
