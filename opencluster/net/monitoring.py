"""What libzmq tells of a socket's connections, and in words why one failed.

Must not decide what follows from it.
"""

from __future__ import annotations

import struct

import zmq

EVENTS_PER_TURN = 256
"""Taken from a socket before the others get their turn."""
WARN_INTERVAL_S = 60.0
"""How often a failed handshake is logged."""

HANDSHAKE_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

_CURE = (
    "this process has none: copy a certificate into keys in the cluster's directory, "
    "or name another directory by [cluster] keys"
)
_DONTWAIT = int(zmq.DONTWAIT)


def monitor(
    context: zmq.Context[zmq.Socket[bytes]],
    sock: zmq.Socket[bytes],
    name: str,
    events: int,
) -> zmq.Socket[bytes]:
    """Return a socket at which events of another one can be read."""
    address = f"inproc://monitor-{name}"
    sock.monitor(address, events)
    watch: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    watch.set(zmq.LINGER, 0)
    # without limit: libzmq's thread must never wait for this one to read
    watch.set(zmq.RCVHWM, 0)
    watch.set(zmq.SNDHWM, 0)
    watch.connect(address)
    return watch


def take(watch: zmq.Socket[bytes]) -> list[tuple[int, int, str]]:
    """Return the events that wait at a monitor, each with its value and endpoint.

    Unpacked here, as ``zmq.utils.monitor`` brings asyncio into every process. The
    layout is that of zmq_socket_monitor(3): event and value, then the endpoint.
    """
    events: list[tuple[int, int, str]] = []
    while len(events) < EVENTS_PER_TURN:
        try:
            head, endpoint = watch.recv_multipart(_DONTWAIT)
        except zmq.Again:
            break
        event, value = struct.unpack("=HI", head)
        events.append((event, value, endpoint.rstrip(b"\0").decode(errors="replace")))
    return events


def why(event: int, value: int, has_keys: bool) -> str:
    """Return why a handshake failed, as far as libzmq tells, and what helps.

    Parameters
    ----------
    event, value : int
        What the monitor said.
    has_keys : bool
        Whether this process has keys.
    """
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return (
            "does not admit the certificate of this process: it is revoked, or not on "
            "the roll there; see `opencluster keys show`"
        )
    if event != zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return (
            "broke off the handshake: it ended, or has no keys or another key than was "
            "expected"
            if has_keys
            else f"broke off the handshake: it ended, or wants keys; {_CURE}"
        )
    if value != zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return "speaks another protocol: is it of OpenCluster, and of this version?"
    return (
        "has no keys, while this process has some: start it again with keys, or this "
        "process without"
        if has_keys
        else f"wants keys; {_CURE}"
    )
