"""Dispatchers: daemons that drain the durable task queue into managers."""

from opencluster.dispatcher.daemon import TaskDispatcher

__all__ = ["TaskDispatcher"]
