"""A folder of marble diagrams, played and painted: a picture beside each file, and a page of them all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from rxrouter import operators
from rxrouter.testing.marbles import MarbleSpec
from rxrouter.testing.painting import paint
from rxrouter.testing.played import Played

_MADE = "<!-- made by: rxrouter marbles -->\n"  # in what it writes, so that it never writes over anything else
_PAGE = "README.md"
_READING = """# Marbles

Made by `rxrouter marbles`, which plays the diagrams of each `.marble` file in virtual time, and paints what was played.

- A line is time, from left to right, in seconds. What comes down at one moment stands under one another.
- A circle is a value; its letter is explained under the diagram. **|** is the end, **✕** an error.
- Above the box are the sources, in the box is what is done with them, under it is what a reader gets.
- A bracket under a line goes from subscribing to leaving. Where the line is dotted, nobody listens.
- What is pale nobody heard.
"""


class Gallery(Struct, frozen=True):
    """What a folder is to hold beside its diagrams."""

    folder: Path
    diagrams: int  # that were played, and are true
    files: dict[Path, bytes | None]  # None: it is there, and should not be

    @classmethod
    def play(cls, folder: str | Path, names: dict[str, Any] | None = None) -> Gallery:
        """Plays and paints every diagram in the folder; writes nothing.

        Args:
            folder: Where the `.marble` files are.
            names: What their Python knows besides.

        Raises:
            AssertionError: diagrams are wrong, or can't be read or played; all of them are told.
            ValueError: there is no diagram.
        """
        folder = Path(folder)
        sources = sorted(folder.glob("*.marble"), key=_place)
        if not sources:
            raise ValueError(f"there is no .marble file in {folder}")
        wrong: list[str] = []
        played = {path: list(_played(path, names or {}, wrong)) for path in sources}
        if wrong:
            raise AssertionError("\n\n".join(wrong))
        files: dict[Path, bytes | None] = {path: None for path in folder.glob("*.svg") if _is_ours(path)}
        for path, diagrams in played.items():
            picture = paint(f"Marble diagrams of {_title(path.stem)}", diagrams)
            files[path.with_suffix(".svg")] = (picture + _MADE).encode()
        files[folder / _PAGE] = _page(sources, names or {}).encode()
        return cls(folder, sum(map(len, played.values())), files)

    def stale(self) -> list[Path]:
        """The files that are not as they should be."""
        return [path for path, text in self.files.items() if (path.read_bytes() if path.exists() else None) != text]

    def write(self) -> list[Path]:
        """Makes the files what they should be; returns those that were not.

        Raises:
            ValueError: there is a file of this name which was not made by a gallery; nothing is written.
        """
        stale = self.stale()
        for path in stale:
            if path.exists() and not _is_ours(path):
                raise ValueError(f"{path} was not made by `rxrouter marbles`: it would be written over; move it away")
        for path in stale:
            text = self.files[path]
            if text is None:
                path.unlink()
            else:
                path.write_bytes(text)
        return stale


def _played(path: Path, names: dict[str, Any], wrong: list[str]) -> Iterator[tuple[MarbleSpec, Played]]:
    """The diagrams of a file with what was played; what is wrong is told in the list instead."""
    try:
        specs = MarbleSpec.load(path, names)
    except ValueError as error:
        wrong.append(str(error))
        return
    for spec in specs:
        try:
            yield spec, spec.check()
        except (AssertionError, ValueError) as error:
            wrong.append(str(error))


def _place(path: Path) -> tuple[int, str]:
    """Where it stands on the page: operators in their order, then what else there is."""
    names = operators.__all__
    return (names.index(path.stem) if path.stem in names else len(names)), path.stem


def _title(stem: str) -> str:
    return f"{stem}()" if stem in operators.__all__ else stem


def _page(sources: list[Path], names: dict[str, Any]) -> str:
    return "\n".join([_MADE, _READING, *(_section(path, names) for path in sources)])


def _section(path: Path, names: dict[str, Any]) -> str:
    stem, title = path.stem, _title(path.stem)
    purpose = (inspect.getdoc(names.get(stem, getattr(operators, stem, None))) or "").partition("\n")[0]
    links = [f"[{path.name}]({path.name})"]
    if (path.resolve().parent.parent / (source := f"rxrouter/operators/{stem}.py")).exists():
        links.append(f"[{stem}.py](../{source})")
    picture = f"![Marble diagrams of {title}]({stem}.svg)"
    return "\n\n".join(part for part in (f"## {title}", purpose, picture, " · ".join(links)) if part) + "\n"


def _is_ours(path: Path) -> bool:
    return _MADE.encode() in path.read_bytes()
