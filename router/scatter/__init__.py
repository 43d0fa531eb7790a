"""Commands over several shards.

planner     which shards a command concerns, and with which of its arguments
merges      one reply out of the parts' replies
moves       what takes several steps: a value that goes to another shard, algebra over shards
cursor      what visits one shard after the other: SCAN, RANDOMKEY
outcome     the one error that stands for parts that failed
"""
