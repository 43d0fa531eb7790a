"""The load generator behind `kache bench` and the benchmark suite.

spec        what a load is, and what came of it
generator   starts the processes, adds up what they measured
worker      one process: connects, warms up, measures
driver      compiled: sends the requests and reads the replies of all its connections
"""
