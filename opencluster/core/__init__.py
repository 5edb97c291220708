"""Decisions without I/O: registry, dispatch, inbox and supervision as pure objects.

Nothing in this room opens a socket, reads a clock, starts a thread or logs. Each
machine is given the time and an event and returns what should happen; the shells in
``factory.py``, ``worker.py``, ``workshop.py`` and ``engines/`` carry the events in
and the effects out.
"""
