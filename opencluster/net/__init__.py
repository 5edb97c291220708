"""Sockets and threads: the transport, the reactor that drives it, and requests.

A process has one `Reactor`, which owns every socket, and one thread at a time holds it:
a thread that waits, or else one in the background. Whoever does not hold it meets it
through `Reactor.post`. What the messages mean is decided elsewhere.
"""
