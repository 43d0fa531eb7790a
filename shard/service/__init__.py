"""What runs beside the commands of a shard: the cleanup thread, the statistics, the slow log."""
