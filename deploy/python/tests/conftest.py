"""Where the repository and its programs are, and a coordinator for the tests that ask one."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(os.environ.get("PROGRAMS", ROOT / "target/release"))


def program(name: str) -> str:
    path = PROGRAMS / name
    if not path.is_file():
        pytest.fail(
            f"'{path}' is missing: cargo build --release --workspace, or set PROGRAMS to a folder with the programs"
        )
    return str(path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real coordinator."""
    from evocache import Client, CoordinatorError

    folder, address = tmp_path_factory.mktemp("coordinator"), f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        serving = subprocess.Popen(
            [program("evocache"), "serve", "--listen", address, "--data", str(folder / "store")], stderr=log
        )
    try:
        for attempt in range(200):
            assert serving.poll() is None, (folder / "log").read_text()
            try:
                Client(address, timeout=1).close()
                break
            except CoordinatorError:
                if attempt == 199:
                    raise
                import time

                time.sleep(0.05)
        yield address
    finally:
        serving.terminate()
        serving.wait(30)
