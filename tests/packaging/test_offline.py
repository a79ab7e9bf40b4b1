"""The suite runs without a network: a connection to anywhere but this machine is refused before it is tried."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketConnectBlockedError


def test_a_connection_to_elsewhere_is_refused() -> None:
    with socket.socket() as out:
        out.settimeout(1)
        with pytest.raises(SocketConnectBlockedError):
            out.connect(("192.0.2.1", 80))  # an address for documentation, which nobody has


def test_this_machine_may_be_talked_to() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
