# What a router counts, and how it is told.

cdef class Counters:

    def __init__(self, int64_t now_ms):
        self.errors = {}
        self.closings = {}
        self.samples = []
        self.lags = []
        self.since_ms = now_ms

    cdef int count_error(self, str message) except -1:
        """An error reply is made here; its code is the first word."""
        code = message.partition(" ")[0]
        self.errors[code] = self.errors.get(code, 0) + 1
        return 0

    cdef tuple traffic(self, Router router):
        """(now, commands, bytes in, bytes out)"""
        cdef uint64_t bytes_in = self.bytes_in_closed, bytes_out = self.bytes_out_closed
        cdef Session session
        for session in router.clients.by_id.values():
            bytes_in += session.bytes_in
            bytes_out += session.bytes_out
        return router.now_ms, self.commands, bytes_in, bytes_out

    cdef int count_closing(self, str reason) except -1:
        self.closings[reason] = self.closings.get(reason, 0) + 1
        return 0

    cdef int sample(self, Router router) except -1:
        """Once a second, for the rates and the peak."""
        self.client_peak = max(self.client_peak, router.clients.cost())
        self.samples.append(self.traffic(router))
        if len(self.samples) > 3:
            del self.samples[0]
        self.lags.append(self.lag_us)
        if len(self.lags) > 60:
            del self.lags[0]
        self.lag_us = 0
        return 0

    cdef dict report(self, Router router):
        """Counters since the start (or the last reset), current levels, and rates over the last seconds."""
        cdef Command* command
        now, commands, bytes_in, bytes_out = self.traffic(router)
        self.client_peak = max(self.client_peak, router.clients.cost())
        first = self.samples[0] if self.samples else (self.since_ms, 0, 0, 0)
        seconds = max(now - first[0], 1) / 1000.0
        local_calls = {}
        latencies = {}
        for i in range(router.table.count):
            command = &router.table.commands[i]
            if command.calls:
                local_calls[<object> command.key] = (command.calls, command.micros, command.failed)
                latencies[<object> command.key] = latency_of(command)
        return {
            "connections_accepted": self.accepted,
            "connections_refused": self.refused,
            "connections_current": len(router.clients.by_id),
            "connections_blocked": sum([1 for session in router.clients.by_id.values() if session.blocked]),
            "blocked_clients": router.clients.blocked,
            "pubsub_clients": sum([1 for session in router.clients.by_id.values() if (<Session> session).subscriptions]),
            "tracking_clients": len(router.trackers.sessions),
            "watching_clients": sum([1 for session in router.clients.by_id.values()
                                     if (<Session> session).watched is not None]),
            "tls_clients": router.clients.count_tls(),
            "tls_handshakes": 0 if router.handshakes is None else router.handshakes.pool.handshakes,
            "tls_resumed": 0 if router.handshakes is None else router.handshakes.pool.resumed,
            "tls_failed": 0 if router.handshakes is None else router.handshakes.pool.failed,
            "commands": commands,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "in_flight": sum([link.in_flight for link in router.links]),
            "timeouts": self.timeouts,
            "uncertain": self.uncertain,
            "refused_down": self.refused_down,
            "refused_overload": self.refused_overload,
            "protocol_errors": self.protocol_errors,
            "errors": dict(self.errors),
            "closed_by_output_limit": self.output_closed,
            "closed_for_memory": self.evicted,
            "closed_by_timeout": self.timeout_closed,
            "closings": dict(self.closings),
            "client_bytes": router.clients.cost(),
            "client_bytes_peak": self.client_peak,
            "output_bytes": router.clients.output_bytes,
            "ops_per_second": max(commands - first[1], 0) / seconds,
            "input_kbps": max(bytes_in - first[2], 0) / seconds / 1024,
            "output_kbps": max(bytes_out - first[3], 0) / seconds / 1024,
            "lag_us": max(self.lag_us, max(self.lags, default=0)),
            "local_calls": local_calls,
            "latency_ns": latencies,
        }

    cdef int reset(self, Router router) except -1:
        cdef int i
        cdef uint64_t bytes_in, bytes_out
        _, _, bytes_in, bytes_out = self.traffic(router)
        self.commands = self.accepted = self.refused = self.timeouts = self.uncertain = 0
        self.refused_down = self.refused_overload = self.protocol_errors = 0
        self.output_closed = self.evicted = self.timeout_closed = 0
        if router.handshakes is not None:
            router.handshakes.pool.reset()
        self.errors.clear()
        self.closings.clear()
        # Modulo 2**64: open connections go on counting from where they are.
        self.bytes_in_closed -= bytes_in
        self.bytes_out_closed -= bytes_out
        self.client_peak = router.clients.cost()
        self.samples.clear()
        self.lags.clear()
        self.lag_us = 0
        self.since_ms = router.now_ms
        for i in range(router.table.count):
            reset_command(&router.table.commands[i])
        return 0
