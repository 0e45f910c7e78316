"""Looking at a port before a server is started on it, for a line that says more than the server's own; finding some."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Sequence
from functools import cache

from msgspec import Struct

from harkara.embedded.errors import StackError

HOST = "127.0.0.1"

#: Below the ports that the system lends to outgoing connections: those may take one while its owner is restarted.
_TO_CHOOSE_FROM = range(10_000, 32_000)

#: What this process has chosen: its own locks do not keep it from choosing them again.
_ours: set[int] = set()


class Port(Struct, frozen=True):
    """A port that something is to listen on, and the option that chooses another; number 0 is any."""

    option: str
    number: int
    host: str = HOST


def check(port: Port) -> bool:
    """Whether it is free: False if another program has it. Raises StackError if nobody can ever listen on it."""
    number, other = port.number, f"choose another with {port.option}"
    with socket.socket(socket.AF_INET6 if ":" in port.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host, number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise StackError(f"this machine has no address {port.host}: choose another with --host") from error
            raise StackError(f"port {number} on {port.host} cannot be used ({error.strerror}): {other}") from error
        except OverflowError as error:
            raise StackError(f"{number} is no port, they go up to 65535: {other}") from error
    return True


def reached_at(host: str) -> str:
    """Where a program on this machine finds what listens on this address, as it stands in a URL."""
    host = {"": HOST, "0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104 - asked for, not listened on
    return f"[{host}]" if ":" in host else host


def check_all(ports: Sequence[Port]) -> None:
    """Raises StackError if some of them can't be listened on now, naming these, or if two of them are one."""
    seen: dict[int, Port] = {}
    for port in ports:
        other = seen.setdefault(port.number, port)
        if port.number and other is not port:
            raise StackError(f"{other.option} and {port.option} both name port {port.number}: choose another for one")
    if others := [port for port in ports if not check(port)]:
        raise StackError(taken(*others))


def taken(*ports: Port) -> str:
    """What to tell about ports that other programs listen on."""
    if len(ports) == 1:
        (port,) = ports
        return f"port {port.number} is taken by another program: stop that one, or choose another with {port.option}"
    numbers, options = _listed([str(port.number) for port in ports]), _listed([port.option for port in ports])
    return f"ports {numbers} are taken by other programs: stop those, or choose others with {options}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def free_ports(count: int, within: range = _TO_CHOOSE_FROM) -> list[int]:
    """Ports that nobody listens on, and that no other process of this user is given before this one has ended.

    Raises StackError if there are not so many.
    """
    found: list[int] = []
    begin = secrets.randbelow(len(within))
    for place in range(len(within)):
        if len(found) == count:
            break
        port = within[(begin + place) % len(within)]
        if port not in _ours and _locked(port) and _silent(port):
            _ours.add(port)
            found.append(port)
    if len(found) < count:
        raise StackError(f"of the ports {within.start} to {within.stop - 1} are no {count} free: end what uses them")
    return found


@cache
def _register() -> int:
    """A file whose bytes stand for ports: whoever is given a port locks its byte for life.

    It stays empty, and it lies where all look for it, whatever TMPDIR they have.
    """
    path = f"/tmp/harkara-ports-{os.geteuid()}"  # noqa: S108 - nothing is read from it, and no link is followed
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(port: int) -> bool:
    try:
        fcntl.lockf(_register(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _silent(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
