"""The suite runs without a network: a connection to anywhere but this machine is refused before it is tried.

And no command waits for connections: there is no server in the package.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_socket import SocketConnectBlockedError

from tests.runs import ENVIRONMENT, SMALL

# Every port that a command, or a process it forks, listens at is an event of Python's own.
WATCHED = """
import os, sys
from maskedmodel.cli.app import run_cli

def hook(event, given):
    if event == "socket.bind" and isinstance(given[1], tuple):
        os.write(2, f"listens at {given[1]}\\n".encode())
        os._exit(9)

sys.addaudithook(hook)
sys.exit(run_cli(sys.argv[1:]))
"""


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


def test_no_command_waits_for_connections(tmp_path: Path) -> None:
    def watched(*words: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, env=ENVIRONMENT, timeout=240
        )
        assert ended.returncode == 0, ended.stderr

    run = str(tmp_path / "run")
    watched("pretrain", "--run", run, *SMALL, "train.steps=2", "train.workers=1")
    watched("embed", run, "val", "--to", str(tmp_path / "features.npz"))


def test_a_port_would_be_seen() -> None:
    script = WATCHED.split("sys.exit")[0] + "import socket; socket.socket().bind(('127.0.0.1', 0))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert (ended.returncode, ended.stderr) == (9, "listens at ('127.0.0.1', 0)\n")
