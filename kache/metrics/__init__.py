"""The process beside a cluster that answers on the metrics port: for Prometheus, for probes, and for people.

main         the process: the control channel, starting and stopping
server       HTTP over asyncio, with h11
pages        which path is answered how, and who may ask
source       the figures of the cluster, asked over an ordinary client connection
console      what the web console shows and changes; console.html, the page
exposition   the figures as Prometheus and OpenMetrics read them

It is started by the supervisor where `metrics-port` is set, and looked after like any other child. Nothing here runs in a
router or a shard: what a scrape costs them is one STATS.
"""
