"""The server that a client asks: its URL, the headers for it, and whether the environment's key is meant for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

BASE_URL = "https://openrouter.ai/api/v1"
_HOST = "openrouter.ai"
# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers that frame the body or belong to one connection: they follow from the request, and a false one hangs it, or
# smuggles another request behind it.
_OF_THE_CONNECTION = {
    *("connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te"),
    *("trailer", "transfer-encoding", "upgrade"),
}


class Endpoint:
    """A base URL, taken apart.

    Args:
        base_url: As given in code; the environment's OPENROUTER_BASE_URL, or OpenRouter's own, when empty.

    Raises:
        ValueError: it is not an http(s) URL, or has a fragment.
    """

    def __init__(self, base_url: str | None) -> None:
        url = base_url or os.environ.get("OPENROUTER_BASE_URL") or BASE_URL
        self._parts = parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not self._has_address():
            raise ValueError("base_url is no http(s) URL")
        if "#" in url:
            raise ValueError("base_url must be a URL without a fragment, got one with '#' in it")
        self._base = parts._replace(path=parts.path.rstrip("/"), query="").geturl()
        self.is_openrouter = parts.scheme == "https" and f".{parts.hostname}".endswith(f".{_HOST}")
        self._is_of_environment = not base_url and self._base != BASE_URL

    def __str__(self) -> str:
        """Return the URL without user, password and query."""
        parts = self._parts
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

    @property
    def has_user(self) -> bool:
        """Whether the URL authenticates by itself."""
        return bool(self._parts.username)

    def environment_key(self) -> str | None:
        """Return the environment's key, for OpenRouter itself and for the environment's own base URL only."""
        return os.environ.get("OPENROUTER_API_KEY") if self.is_openrouter or self._is_of_environment else None

    def url(self, path: str) -> str:
        """Return the URL of a path below the base URL; both may have a query.

        Raises:
            ValueError: the path has no slash in front, or a fragment.
        """
        if not path.startswith("/"):
            raise ValueError(f"path starts with a slash, not {path!r}")
        if "#" in path:
            raise ValueError(f"path must have no fragment, got {path!r}")
        path, _, query = path.partition("?")
        queries = "&".join(filter(None, (self._parts.query, query)))
        return f"{self._base}{path}?{queries}" if queries else self._base + path

    def environment_proxy(self) -> str | None:
        """Return the proxy that HTTPS_PROXY and its like name for this URL.

        Not aiohttp's `trust_env`: that asks a thread for it at every request, and refuses to work beside a netrc entry.
        Never for this machine's own addresses: a simulator's requests stay on it.
        """
        host = self._parts.hostname or ""
        if host in {"localhost", "::1"} or host.startswith("127.") or proxy_bypass(host):
            return None
        return getproxies().get(self._parts.scheme)

    def _has_address(self) -> bool:
        try:
            # Reading the port raises ValueError if it is not a number of a port.
            _ = self._parts.port
            return bool((self._parts.hostname or "").encode("idna"))
        except ValueError:
            return False


def checked_headers(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Return the headers of a caller.

    Raises:
        TypeError: a name or a value is not a string.
        ValueError: a name is not a token, comes twice, or belongs to the connection.
    """
    if not all(isinstance(text, str) for header in headers.items() for text in header):
        raise TypeError("headers are strings")
    seen: dict[str, str] = {}
    for name in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"headers must have names of letters, digits and !#$%&'*+-.^_`|~, got {name!r}")
        if name.lower() in _OF_THE_CONNECTION:
            raise ValueError(f"headers must leave the connection and the body's framing to the client, got {name!r}")
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"headers must have each name once, got {other!r} and {name!r}")
    return dict(headers)


def merged_headers(own: Mapping[str, str | None], given: Mapping[str, str]) -> dict[str, str]:
    """Return ours, and those that were given, which replace ours in any spelling.

    Raises:
        ValueError: a value has a character that no header can have.
    """
    names = {name.lower() for name in given}
    headers = {name: value for name, value in own.items() if value and name.lower() not in names} | dict(given)
    for name, value in headers.items():
        if not value.isprintable():
            raise ValueError(f"headers must have printable values, got another character in {name}")
    return headers
