"""What a workshop does to its computer: start, limit, measure and reap processes.

GPUs, log files and the small shared files by which a worker says how it is doing
belong here too. Nothing in this room opens a socket, and nothing decides what should
run or when it is restarted: that is `opencluster.core.supervision`. Linux gives every
feature; on other systems those that the system lacks are absent.
"""
