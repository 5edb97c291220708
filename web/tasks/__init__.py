"""The tasks of the durable queue: what waits, runs and has ended."""
