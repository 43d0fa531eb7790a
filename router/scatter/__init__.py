"""Commands over several shards.

planner     which shards a command concerns, and with which of its arguments
merges      one reply out of the parts' replies
transaction locks for the length of a command in several steps, and streams of parts
lead        EXEC when a command in it takes several steps
algebra     unions, intersections and differences of large sets, in slices
moves       what takes several steps: a value that goes to another shard, a command with copies of keys
blocking    what waits for keys on several shards: BLPOP and its like
scripts     scripts with keys on several shards
streams     XREAD and XREADGROUP of streams on several shards
cursor      what visits one shard after the other: SCAN, RANDOMKEY
outcome     the one error that stands for parts that failed
"""
