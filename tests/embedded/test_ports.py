"""Ports for servers that are started at the same time, by several processes."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from harkara.embedded.errors import StackError
from harkara.embedded.ports import Port, check_all, free_ports, reached_at


def test_no_port_is_given_twice_here_or_to_another_process() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with pytest.raises(StackError, match=f"{port} to {port} are no 1 free"):
            free_ports(1, range(port, port + 1))
    script = (
        "from harkara.embedded.ports import free_ports, _silent\n"
        f"assert all(map(_silent, {ports})), 'nobody listens there'\n"
        f"for port in {ports}: free_ports(1, range(port, port + 1))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"StackError: of the ports {ports[0]} to {ports[0]}" in other.stderr


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port not in free_ports(1, range(port, min(port + 20, 65_536)))


def test_a_port_that_is_named_twice_is_told_with_both_options() -> None:
    port = free_ports(1)[0]
    check_all([Port("--nats-port", 0), Port("--websocket", 0), Port("--port", port)])
    with pytest.raises(StackError, match=f"--port and --gateway-port both name port {port}"):
        check_all([Port("--port", port), Port("--gateway-port", port)])


def test_all_ports_that_are_taken_are_told_at_once() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        numbers = [taken.getsockname()[1] for taken in (one, two, three)]
        ports = [Port(option, number) for option, number in zip(("--a", "--b", "--c"), numbers, strict=True)]
        a, b, c = numbers
        with pytest.raises(StackError, match=f"^ports {a}, {b} and {c} are .* others with --a, --b and --c$"):
            check_all([*ports, Port("--free", 0)])


def test_an_address_that_this_machine_has_not_is_told() -> None:
    with pytest.raises(StackError, match=r"^this machine has no address 192\.0\.2\.1: choose another with --host$"):
        check_all([Port("--port", 0, "192.0.2.1")])


@pytest.mark.parametrize(
    ("host", "place"),
    [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("127.0.0.2", "127.0.0.2")],
)
def test_where_what_listens_is_found(host: str, place: str) -> None:
    assert reached_at(host) == place
