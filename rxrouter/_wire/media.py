"""What a delta carries beside text: citations, images, sound; as the wire says it, but with names."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import Struct

from rxrouter._wire.json import as_object


class Citation(Struct, frozen=True):
    """A source that the answer refers to."""

    url: str
    title: str | None = None
    content: str | None = None  # what the source says
    start_index: int | None = None  # where in the answer it is referred to; 0 and 0 in what OpenRouter streams
    end_index: int | None = None


class Image(Struct, frozen=True):
    """A picture that the model made, whole."""

    url: str  # mostly a data URL
    index: int | None = None

    def __repr__(self) -> str:
        return f"Image({self.url[:32]}…)" if len(self.url) > 32 else f"Image({self.url})"  # noqa: PLR2004

    @property
    def media_type(self) -> str | None:
        """What a data URL says of its data, such as "image/png"; None for the URL of a server."""
        head, comma, _ = self.url.partition(",")
        return head.removeprefix("data:").partition(";")[0] if comma and head.startswith("data:") else None

    @property
    def data(self) -> bytes | None:
        """The picture's bytes, of a data URL; None for the URL of a server.

        Raises:
            ValueError: it is no base64.
        """
        if self.media_type is None:
            return None
        return base64.b64decode(self.url.partition(",")[2], validate=True)


class Audio(Struct, frozen=True):
    """A piece of spoken answer; its fields come in different pieces."""

    id: str | None = None
    data: str | None = None  # base64; the pieces of an answer together
    transcript: str | None = None
    expires_at: int | None = None  # Unix time in seconds, until which the id can be sent back


def citation_of(annotation: dict[str, Any]) -> Citation | None:
    """The citation that an annotation is; None for a file, or for what has no URL."""
    told = as_object(annotation.get("url_citation"))
    url = _text(told, "url")
    if not url:
        return None
    return Citation(
        url, _text(told, "title"), _text(told, "content"), _number(told, "start_index"), _number(told, "end_index")
    )


def image_of(image: dict[str, Any]) -> Image | None:
    """The image, None for what has no URL."""
    url = _text(as_object(image.get("image_url")), "url")
    return Image(url, _number(image, "index")) if url else None


def audio_of(audio: dict[str, Any]) -> Audio:
    """The piece of sound."""
    return Audio(_text(audio, "id"), _text(audio, "data"), _text(audio, "transcript"), _number(audio, "expires_at"))


def _text(told: dict[str, Any], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) else None


def _number(told: dict[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if isinstance(value, int) else None
