# What a router counts, and how it is told.

cdef tuple traffic(Router router):
    cdef uint64_t bytes_in = router.bytes_in_closed, bytes_out = router.bytes_out_closed
    cdef Session session
    for session in router.by_id.values():
        bytes_in += session.bytes_in
        bytes_out += session.bytes_out
    return router.now_ms, router.commands, bytes_in, bytes_out


cdef int take_sample(Router router) except -1:
    router.samples.append(traffic(router))
    if len(router.samples) > 3:
        del router.samples[0]
    return 0


cdef dict statistics_of(Router router):
    cdef Link link
    cdef Command* command
    now, commands, bytes_in, bytes_out = traffic(router)
    first = router.samples[0] if router.samples else (router.counting_ms, 0, 0, 0)
    seconds = max(now - first[0], 1) / 1000.0
    local_calls = {}
    for i in range(router.table.count):
        command = &router.table.commands[i]
        if command.calls:
            local_calls[<object> command.key] = (command.calls, command.micros, command.failed)
    return {
        "connections_accepted": router.accepted,
        "connections_refused": router.refused,
        "connections_current": len(router.by_id),
        "connections_blocked": sum([1 for session in router.by_id.values() if session.blocked]),
        "commands": commands,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "in_flight": sum([link.in_flight for link in router.links]),
        "timeouts": router.timeouts,
        "uncertain": router.uncertain,
        "refused_down": router.refused_down,
        "refused_overload": router.refused_overload,
        "protocol_errors": router.protocol_errors,
        "errors": dict(router.errors),
        "closed_by_output_limit": router.output_closed,
        "closed_by_timeout": router.timeout_closed,
        "output_bytes": router.output_bytes,
        "ops_per_second": max(commands - first[1], 0) / seconds,
        "input_kbps": max(bytes_in - first[2], 0) / seconds / 1024,
        "output_kbps": max(bytes_out - first[3], 0) / seconds / 1024,
        "local_calls": local_calls,
    }


cdef int reset_statistics_of(Router router) except -1:
    cdef int i
    cdef uint64_t bytes_in, bytes_out
    _, _, bytes_in, bytes_out = traffic(router)
    router.commands = router.accepted = router.refused = router.timeouts = router.uncertain = 0
    router.refused_down = router.refused_overload = router.protocol_errors = 0
    router.output_closed = router.timeout_closed = 0
    router.errors.clear()
    # Modulo 2**64: open connections go on counting from where they are.
    router.bytes_in_closed -= bytes_in
    router.bytes_out_closed -= bytes_out
    router.samples.clear()
    router.counting_ms = router.now_ms
    for i in range(router.table.count):
        router.table.commands[i].calls = router.table.commands[i].micros = router.table.commands[i].failed = 0
    return 0
