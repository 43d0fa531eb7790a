"""What runs beside the commands of a shard.

cleanup      the thread that takes apart what is too large to be freed at once
statistics   what a shard says of itself
slowlog      commands that took long
blocking     clients that wait for a key to hold something
"""
