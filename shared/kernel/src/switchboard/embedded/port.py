"""Ports on loopback."""

from __future__ import annotations

import random
import socket

from switchboard.embedded.errors import PortTaken

LOOPBACK = "127.0.0.1"
#: Below the ports systems give to outgoing connections (from 32768). Among those, a client that calls a
#: server that is down can be given the server's own port: it then talks to itself and keeps the server out.
_PORTS = range(10_240, 32_768)
_TRIES = 200


def free_port() -> int:
    """Return a TCP port nobody uses, on loopback; by rare chance taken before the caller can."""
    for port in random.SystemRandom().sample(_PORTS, _TRIES):
        if is_free(port):
            return port
    raise PortTaken(f"none of {_TRIES} ports between {_PORTS.start} and {_PORTS.stop} is free on {LOOPBACK}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now; connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
