"""The settings of a router that its data path reads, as C numbers.

Owned by the router, which fills it in at its start and at every change of the configuration; sessions and backends read
its fields, where a Python attribute would cost more than what it guards.
"""
from kache.config.client_limits import client_budget, flow_room


cdef class Limits:

    cdef int apply(self, object config, int routers) except -1:
        """Takes over a configuration; it holds from the next frame on."""
        self.request_timeout = config.request_timeout_ms
        self.command_timeout = config.command_timeout_ms
        self.transaction_hold = config.transaction_hold_ms
        self.logged = config.appendonly
        self.idle_timeout = config.timeout * 1000
        self.preauth_timeout = config.preauth_timeout_ms
        self.handshake_timeout = config.tls_handshake_timeout_ms
        self.soft_output_ms = config.output_soft_seconds * 1000
        self.keepalive = config.tcp_keepalive
        self.max_clients = config.maxclients
        self.slow_ns = 0x7FFFFFFFFFFFFFFF
        if 0 <= config.slowlog_log_slower_than < self.slow_ns // 1000:
            self.slow_ns = config.slowlog_log_slower_than * 1000
        self.max_frame = config.max_frame_bytes
        self.max_strings = config.max_strings
        self.max_bulk = config.proto_max_bulk_len
        self.query_limit = config.client_query_buffer_limit
        self.preauth_bytes = config.preauth_max_bytes
        self.preauth_commands = config.preauth_max_commands
        self.session_commands = config.max_inflight_per_client
        self.session_bytes = config.max_inflight_bytes_per_client
        self.link_soft_commands = config.link_soft_commands
        self.link_hard_commands = config.link_hard_commands
        self.link_soft_bytes = config.link_soft_bytes
        self.link_hard_bytes = config.link_hard_bytes
        self.budget = client_budget(config) // routers
        self.flow_room = flow_room(config)
        for which, (name, hard, soft, seconds) in enumerate(config.client_output_buffer_limit[::2]):
            self.output_hard[which] = hard
            self.output_soft[which] = soft
            self.output_over_ms[which] = seconds * 1000
        return 0
