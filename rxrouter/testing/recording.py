"""Recording: a response body as it came, in its blocks and with their timing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Self

from msgspec import Struct


class Recording(Struct, frozen=True):
    """Blocks of bytes, and the seconds that passed before each; played by a `Simulator`."""

    blocks: tuple[bytes, ...]
    pauses: tuple[float, ...] = ()  # seconds before each block; () for none

    def __post_init__(self) -> None:
        if self.pauses and len(self.pauses) != len(self.blocks):
            raise ValueError(f"{len(self.blocks)} blocks have {len(self.pauses)} pauses")

    @property
    def body(self) -> bytes:
        """All bytes."""
        return b"".join(self.blocks)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The recording in `path`, an event stream as it is.

        `x.chunks.json` beside `x.sse` has the blocks: a list of sizes in bytes, or of [size, seconds before it];
        without it, each event is a block.

        Raises:
            ValueError: the sizes don't add up to the file.
        """
        path = Path(path)
        body = path.read_bytes()
        cuts = path.with_suffix(".chunks.json")
        if not cuts.exists():
            return cls(tuple(event + b"\n\n" for event in body.split(b"\n\n") if event))
        frames = [(f, 0.0) if isinstance(f, int) else (int(f[0]), float(f[1])) for f in json.loads(cuts.read_bytes())]
        if sum(size for size, _ in frames) != len(body):
            raise ValueError(f"{cuts} is not of {path}: the sizes don't add up")
        return cls(tuple(_cut(body, (size for size, _ in frames))), tuple(pause for _, pause in frames))

    def save(self, path: str | Path) -> None:
        """Writes the body to `path`, and blocks and timing to `.chunks.json` beside it."""
        path = Path(path)
        path.write_bytes(self.body)
        pauses = self.pauses or (0.0,) * len(self.blocks)
        frames = [[len(block), pause] for block, pause in zip(self.blocks, pauses, strict=True)]
        path.with_suffix(".chunks.json").write_text(json.dumps(frames))

    def recut(self, sizes: Iterable[int]) -> Recording:
        """The same bytes in blocks of other sizes, without timing; what the sizes leave over is the last block."""
        return Recording(tuple(_cut(self.body, sizes)))

    def bytewise(self) -> Recording:
        """The same, each byte a block."""
        return self.recut([1] * len(self.body))


def _cut(body: bytes, sizes: Iterable[int]) -> list[bytes]:
    edges = [0, *(at for at in accumulate(sizes) if at < len(body)), len(body)]
    return [body[a:b] for a, b in pairwise(edges) if a < b]
