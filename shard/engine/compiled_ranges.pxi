# What rate limiters ask of a sorted set: how many members have a score in a range, and that those be removed. The same as
# compiled_strings.pxi says.

cdef double INFINITE = float("inf")


cdef bint parse_bound(Span* text, double* score, bint* is_open) noexcept nogil:
    """An end of a range of scores: a plain decimal or an infinity, which may be left out ("(3"). Anything else is the handler's."""
    cdef const char* at = text.data
    cdef Py_ssize_t n = text.size
    is_open[0] = n > 0 and at[0] == c"("
    if is_open[0]:
        at += 1
        n -= 1
    if n == 4 and at[0] in (c"-", c"+") and memcmp(at + 1, b"inf", 3) == 0:
        score[0] = -INFINITE if at[0] == c"-" else INFINITE
        return True
    return parse_decimal(at, n, score)


cdef uint32_t packed_before(Entry* entry, double score, bint with_it) noexcept:
    """How many members of a packed sorted set have a lower score, or the same `with_it`."""
    cdef const char* at = entry_value(entry) + HEADER
    cdef const char* end = entry_value(entry) + entry_value_size(entry)
    cdef uint32_t count = 0
    cdef double found
    while at < end:
        at += item_span(at)
        found = item_score(at)
        if found > score or (found == score and not with_it):
            break
        at += item_span(at)
        count += 1
    return count


cdef int find_scores(Context context, int slot, Span* args, Place* place, Entry** entry, uint32_t* start, uint32_t* stop) except -1:
    """The ranks [start, stop) of the scores between the second argument and the third. DECLINE where they are not plain."""
    cdef double low, high
    cdef bint low_open, high_open
    if not parse_bound(args + 1, &low, &low_open) or not parse_bound(args + 2, &high, &high_open):
        return DECLINE
    context.store.place(place, context.keys.db, slot, args[0].data, args[0].size)
    entry[0] = zset_in(context.store.read(place))
    start[0] = stop[0] = 0
    if entry[0] == NULL:
        return DONE
    if entry[0].flags & PACKED:
        start[0] = packed_before(entry[0], low, low_open)
        stop[0] = max(packed_before(entry[0], high, not high_open), start[0])
        return DONE
    start[0], stop[0] = (<ZSet> <object> entry_object(entry[0])).score_span(low, low_open, high, high_open)
    return DONE


cdef int run_zcount(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef uint32_t start, stop
    if find_scores(context, slot, args, &place, &entry, &start, &stop) != DONE:
        return DECLINE
    return put_int(out, context.dialect, <int64_t> stop - start)


cdef int run_zremrangebyscore(Context context, int slot, Span* args, Py_ssize_t n, Buffer out) except -1:
    cdef Place place
    cdef Entry* entry
    cdef uint32_t start, stop
    if find_scores(context, slot, args, &place, &entry, &start, &stop) != DONE:
        return DECLINE
    if start < stop:
        zset_cut(context.store, &place, entry, start, stop, False, ZSET_REMOVED_BY_SCORE)
    return put_int(out, context.dialect, <int64_t> stop - start)


cdef Compiled compiled_range(str key):
    """The compiled case of a command on a range of scores, or NULL."""
    if key == "zcount": return run_zcount
    if key == "zremrangebyscore": return run_zremrangebyscore
    return compiled_script(key)
