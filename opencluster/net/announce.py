"""The address of many at which a process tells others that it is reached.

Rules
-----
1. What listens at one address announces that one.
2. What listens at all of them, 0.0.0.0, announces the one that ``[network] announce``
   names; without it the one from which this computer reaches the factories, and where
   there are none, the rest of the world. 0.0.0.0 itself is never announced.
3. An address of the loopback is no way to a factory that is named otherwise: Debian has
   the name of a computer stand for 127.0.1.1 on that computer alone.
4. An interface or a network stands for an address that this computer has, and it must
   be listened at. An address is announced as it is: a router may translate it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Sequence

from opencluster.errors import ConfigError
from opencluster.net.names import address_of

log = logging.getLogger(__name__)

EVERYWHERE = "0.0.0.0"
_ELSEWHERE = "tcp://192.0.2.1:9"
"""An address that nobody has (RFC 5737), for which the way out is taken."""
_TCP = "tcp://"


def announced(
    endpoint: str, wanted: str = "", factories: Iterable[Sequence[str]] = ()
) -> str:
    """Return the endpoint at which others are told to reach what listens at one.

    Parameters
    ----------
    endpoint : str
        Where it listens, with the port filled in; a local socket is returned as it is.
    wanted : str
        The setting ``[network] announce``: an address, the name of an interface, a
        network such as ``10.1.0.0/16``, or nothing.
    factories : iterable of sequence of str
        For each factory the endpoints at which it is reached.

    Raises
    ------
    ConfigError
        When this computer has no such address, or does not listen there.
    """
    if not endpoint.startswith(_TCP):
        return endpoint
    bound, _, port = endpoint.removeprefix(_TCP).rpartition(":")
    known = [way for ways in factories for way in ways if way.startswith(_TCP)]
    address = bound
    if wanted:
        address = _chosen(wanted, bound)
    elif bound == EVERYWHERE:
        address = way_out(known)
    if _is_loopback(address) and known and not _is_loopback(way_out(known)):
        log.warning(
            "this process is told to be at %s:%s, where no other computer reaches it, "
            "though the factories (%s) are reached by a network: set [network] bind to "
            "0.0.0.0, or to an address of that network",
            address,
            port,
            ", ".join(known),
        )
    return f"{_TCP}{address}:{port}"


def way_out(endpoints: Iterable[str] = ()) -> str:
    """Return the address of this computer from which others are reached.

    Nothing is sent: the kernel is asked for the way that a packet would take.

    Parameters
    ----------
    endpoints : iterable of str
        Whom to reach: the first that there is a way to. With none of them, the way to
        the rest of the world is meant.
    """
    for endpoint in (*endpoints, _ELSEWHERE):
        host, _, port = endpoint.removeprefix(_TCP).rpartition(":")
        if not endpoint.startswith(_TCP) or stands_for_loopback(host):
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address_of(host), int(port)))
            except (OSError, ValueError, OverflowError):
                # no way, no address, or no port
                continue
            return str(probe.getsockname()[0])
    found = _addresses(is_up=True)
    return next((a for a, _ in found if not _is_loopback(a)), "127.0.0.1")


def stands_for_loopback(name: str) -> bool:
    """Return whether a name that says nothing of it means the loopback here.

    Others have another address for it then.
    """
    if _is_address(name) or name == "localhost":
        return False
    try:
        return _is_loopback(address_of(name))
    except (OSError, UnicodeError):
        return False


def _is_loopback(address: str) -> bool:
    return address.startswith("127.")


def _chosen(wanted: str, bound: str) -> str:
    """Return the address that the setting means."""
    if _is_address(wanted):
        return _checked(wanted)
    mine = _addresses()
    fitting = [a for a, _ in mine if _is_in(a, wanted)]
    if "/" not in wanted:
        fitting = [a for a, interface in mine if interface == wanted]
    listed = ", ".join(f"{address} ({interface})" for address, interface in mine)
    if not fitting:
        # imported here, as is all that only few processes need
        import difflib

        near = difflib.get_close_matches(wanted, [name for _, name in mine], 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"[network] announce = {wanted}: this computer has no such address or "
            f"interface; {hint}it has {listed or 'none'}"
        )
    if bound not in (EVERYWHERE, *fitting):
        raise ConfigError(
            f"[network] announce = {wanted}: this process listens at {bound} alone, "
            f"and cannot be reached at {fitting[0]}; set [network] bind to 0.0.0.0 or "
            f"to {fitting[0]}, or announce nothing else than it listens at"
        )
    return bound if bound in fitting else fitting[0]


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True


def _checked(address: str) -> str:
    """Return an address if one process can be reached there."""
    first = int(address.partition(".")[0])
    # 0 stands for "here", and from 224 on for many at a time, or for nobody
    if first == 0 or first >= 224:
        raise ConfigError(
            f"[network] announce = {address}: nobody can be reached there; give an "
            "address of this computer, the name of an interface, or leave it empty"
        )
    return address


def _is_in(address: str, network: str) -> bool:
    if "/" not in network:
        return False
    import ipaddress

    try:
        within = ipaddress.IPv4Network(network, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"[network] announce = {network}: {error}; give a network such as "
            "10.1.0.0/16, an address, or the name of an interface"
        ) from None
    return ipaddress.IPv4Address(address) in within


def _addresses(is_up: bool = False) -> list[tuple[str, str]]:
    """Return the IPv4 addresses of this computer, each with its interface.

    Parameters
    ----------
    is_up : bool
        Only those whose interface is up.
    """
    import psutil

    ups = {n: s.isup for n, s in psutil.net_if_stats().items()} if is_up else {}
    return [
        (found.address, interface)
        for interface, all_found in psutil.net_if_addrs().items()
        for found in all_found
        if found.family == socket.AF_INET and ups.get(interface, True)
    ]
