"""The limits of the packed form (packed.pxd), which Redis's settings say, and which are the process's own.

A change holds for what is written from then on: what is larger than a limit became no collection of its own just by
being read.
"""
cdef enum:
    LIST_SAFE_BYTES = 8192      # with a limit of elements, a list is packed up to so many bytes


def set_limits(
    *, int64_t hash_entries=512, int64_t hash_value=64, int64_t set_integers=512, int64_t set_entries=128,
    int64_t set_value=64, int64_t zset_entries=128, int64_t zset_value=64, int64_t list_size=-2,
):
    """Up to how many elements, of up to how many bytes each, a collection is packed; Redis's defaults.

    `list_size` as list-max-listpack-size: elements, or -1 to -5 for 4, 8, 16, 32, 64 KiB.
    """
    limits.hash_entries = <uint32_t> max(0, min(hash_entries, MOST_PACKED))
    limits.hash_value = <uint32_t> max(0, min(hash_value, LARGEST_PACKED))
    limits.set_integers = <uint32_t> max(0, min(set_integers, MOST_PACKED))
    limits.set_entries = <uint32_t> max(0, min(set_entries, MOST_PACKED))
    limits.set_value = <uint32_t> max(0, min(set_value, LARGEST_PACKED))
    limits.zset_entries = <uint32_t> max(0, min(zset_entries, MOST_PACKED))
    limits.zset_value = <uint32_t> max(0, min(zset_value, LARGEST_PACKED))
    if list_size < 0:
        limits.list_entries = MOST_PACKED
        limits.list_bytes = <uint32_t> 4096 << min(-list_size - 1, 4)
    else:
        limits.list_entries = <uint32_t> max(1, min(list_size, MOST_PACKED))
        limits.list_bytes = LIST_SAFE_BYTES


set_limits()
