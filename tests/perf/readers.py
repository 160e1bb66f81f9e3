"""Readers that cost the measured process nothing: one process that asks, and reads what comes from many connections.

    python readers.py PORT COUNT [PORT COUNT …]

Ends when all were closed.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main() -> None:
    """Asks, and reads."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    selector = selectors.DefaultSelector()
    numbers = [int(argument) for argument in sys.argv[1:]]
    for port, count in zip(numbers[::2], numbers[1::2], strict=True):
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(ASK)
            selector.register(connection, selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if not key.fileobj.recv(1 << 18):
                selector.unregister(key.fileobj)
                key.fileobj.close()


if __name__ == "__main__":
    main()
