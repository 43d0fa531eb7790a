"""Rows about messages: who subscribes to which channels, and what is published there."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

_LISTEN = "pubsub noscript loading stale"

# fmt: off
ROWS = in_group("pubsub",
    row("psubscribe", "pattern [pattern ...]", -2, _LISTEN, "", "2.0.0", "O(N*S) patterns and shards",
        "Listens to all channels whose names match patterns.", route="local", dialect="resp",
        cluster="differs: Every node is asked, since each passes on what is published to it."),
    row("publish", "channel message", 3, "pubsub loading stale fast may_replicate", "", "2.0.0",
        "O(N+M) clients listening to the channel, patterns that anybody listens to",
        "Sends a message to whoever listens to a channel; how many that were.", route="channel",
        differs="It travels by the shard of the channel's slot; while that is down the reply is CLUSTERDOWN.",
        cluster="native"),
    row("pubsub|channels", "[pattern]", -2, "pubsub loading stale", "", "2.8.0", "O(N*S) channels and shards",
        "Lists the channels that somebody listens to.", route="local",
        cluster="differs: Those of all nodes together."),
    row("pubsub|help", "", 2, "loading stale", "", "6.2.0", "O(1)",
        "Lists the subcommands of PUBSUB.", route="local", cluster="local"),
    row("pubsub|numpat", "", 2, "pubsub loading stale", "", "2.8.0", "O(1)",
        "Returns how many patterns somebody listens to.", route="local",
        cluster="differs: Those of the clients of all routers."),
    row("pubsub|numsub", "[channel [channel ...]]", -2, "pubsub loading stale", "", "2.8.0", "O(N) channels",
        "Returns how many clients listen to each channel, patterns apart.", route="local",
        cluster="differs: The clients of all routers."),
    row("pubsub|shardchannels", "[pattern]", -2, "pubsub loading stale", "", "7.0.0", "O(N*S) channels and shards",
        "Lists the shard channels that somebody listens to.", route="local",
        cluster="differs: Those of all nodes together."),
    row("pubsub|shardnumsub", "[shardchannel [shardchannel ...]]", -2, "pubsub loading stale", "", "7.0.0",
        "O(N) channels",
        "Returns how many clients listen to each shard channel.", route="local",
        cluster="differs: The clients of all routers."),
    row("punsubscribe", "[pattern [pattern ...]]", -1, _LISTEN, "", "2.0.0", "O(N*S) patterns and shards",
        "Listens no longer to some patterns, or to any.", route="local", dialect="resp", cluster="local"),
    row("spublish", "shardchannel message", 3, "pubsub loading stale fast may_replicate", "", "7.0.0",
        "O(N) clients listening to the channel",
        "Sends a message to whoever listens to a shard channel; how many that were.", route="channel",
        cluster="native"),
    row("ssubscribe", "shardchannel [shardchannel ...]", -2, _LISTEN, "", "7.0.0", "O(N) channels",
        "Listens to shard channels.", route="local", dialect="resp",
        differs="The channels may have any slots.", cluster="differs: The channels may have any slots."),
    row("subscribe", "channel [channel ...]", -2, _LISTEN, "", "2.0.0", "O(N) channels",
        "Listens to channels.", route="local", dialect="resp",
        cluster="differs: Each channel is listened to at the node of its slot."),
    row("sunsubscribe", "[shardchannel [shardchannel ...]]", -1, _LISTEN, "", "7.0.0", "O(N) channels",
        "Listens no longer to some shard channels, or to any.", route="local", dialect="resp", cluster="local"),
    row("unsubscribe", "[channel [channel ...]]", -1, _LISTEN, "", "2.0.0", "O(N) channels",
        "Listens no longer to some channels, or to any.", route="local", dialect="resp", cluster="local"),
)
# fmt: on
