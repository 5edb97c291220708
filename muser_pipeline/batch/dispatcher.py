"""The dispatcher: a daemon that runs the requests in the durable queue."""

from __future__ import annotations

from muser_pipeline.batch.manager import UVFITSManager
from opencluster import TaskDispatcher


class UVFITSTaskDispatcher(TaskDispatcher):
    """Runs requests for UVFITS files, and leaves other tasks of the queue to others."""

    only = (UVFITSManager.__name__,)
