"""The durable task queue: what is to be done outlives every process that knows of it.

`TaskQueue` is for whoever wants something done, `Leases` for the dispatchers that do
it. Both look into the same database, SQLite in the cluster's directory or PostgreSQL by
a URL; nobody needs to run for a task to be kept.
"""

from opencluster.taskqueue.leases import Lease, Leased, Leases
from opencluster.taskqueue.queue import TaskQueue
from opencluster.taskqueue.request import Request
from opencluster.taskqueue.task import Task

__all__ = ["Lease", "Leased", "Leases", "Request", "Task", "TaskQueue"]
