"""Sockets and threads: the transport, the reactor that drives it, and requests.

One thread per process runs a `Reactor` and owns every socket; other threads meet it
through `Reactor.post` alone. What the messages mean is decided elsewhere.
"""
