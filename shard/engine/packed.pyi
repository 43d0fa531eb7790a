"""Types of the limits of the packed form (see packed.pyx)."""

def set_limits(
    *,
    hash_entries: int = ...,
    hash_value: int = ...,
    set_integers: int = ...,
    set_entries: int = ...,
    set_value: int = ...,
    zset_entries: int = ...,
    zset_value: int = ...,
    list_size: int = ...,
) -> None: ...
