"""Commands that the router answers by itself: about connections, clients, settings, the cluster."""
