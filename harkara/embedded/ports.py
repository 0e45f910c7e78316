"""Looking at a port before a server is started on it, for a line that says more than the server's own."""

from __future__ import annotations

import errno
import socket

from harkara.embedded.errors import StackError

HOST = "127.0.0.1"


def check(port: int, option: str) -> None:
    """Raises StackError if nobody can listen on this loopback port now; `option` is the way to choose another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken(port, option) from error
            raise StackError(f"port {port} cannot be used ({error.strerror}): choose another with {option}") from error
        except OverflowError as error:
            raise StackError(f"{port} is no port, they go up to 65535: choose another with {option}") from error


def taken(port: int, option: str) -> StackError:
    """What to tell about a port that another program listens on."""
    return StackError(f"port {port} is taken by another program: stop that one, or choose another with {option}")
