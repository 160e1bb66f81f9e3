from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as ops

from rxrouter.testing import Gallery

TEXT = """% text() selects the words
values: {"a": chunk(content="Hel"), "H": "Hel"}
cold src:  --a--|
subs src:  ^----!
> src.pipe(text())
out:       --H--|
"""
OURS = "% ours\ncold src: -a-|\n> src\nout: -a-|\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "usage.marble").write_text(OURS)
    (tmp_path / "text.marble").write_text(TEXT)
    (tmp_path / "always.marble").write_text(OURS)
    return tmp_path


def test_each_file_gets_a_picture_and_all_get_a_page(folder: Path) -> None:
    gallery = Gallery.play(folder)

    assert gallery.diagrams == 3
    assert sorted(path.name for path in gallery.stale()) == ["README.md", "always.svg", "text.svg", "usage.svg"]
    assert sorted(gallery.write()) == sorted(gallery.files)
    assert gallery.stale() == []
    assert (folder / "text.svg").read_text().startswith("<svg")


def test_what_is_painted_again_is_the_same_byte_for_byte(folder: Path) -> None:
    Gallery.play(folder).write()

    assert Gallery.play(folder).stale() == []
    assert Gallery.play(str(folder)).write() == []


def test_the_page_has_operators_in_their_order_and_then_the_others(folder: Path) -> None:
    Gallery.play(folder).write()
    page = (folder / "README.md").read_text()

    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## text()", "## usage()", "## always"]
    assert "Select the text of one choice" in page
    assert "![Marble diagrams of text()](text.svg)" in page
    assert "[text.marble](text.marble)" in page
    assert "text.py" not in page


def test_the_page_links_to_sources_that_are_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "rxrouter" / "operators").mkdir(parents=True)
    (tmp_path / "rxrouter" / "operators" / "text.py").touch()
    (tmp_path / "marbles").mkdir()
    (tmp_path / "marbles" / "text.marble").write_text(TEXT)
    Gallery.play(tmp_path / "marbles").write()

    assert "[text.py](../rxrouter/operators/text.py)" in (tmp_path / "marbles" / "README.md").read_text()


def test_what_is_yours_is_told_by_its_docstring(tmp_path: Path) -> None:
    def twice() -> Any:
        """Say it twice.

        Not on the page.
        """
        return ops.repeat(2)

    (tmp_path / "twice.marble").write_text("% twice\ncold src: -a|\n> src.pipe(twice())\nout: -a-a|\n")
    Gallery.play(tmp_path, {"twice": twice}).write()

    assert "## twice\n\nSay it twice.\n\n![" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("--H--|", "-H---|"),
        ("--H--|", "--H---|"),
        ('"H": "Hel"', '"H": "Hal"'),
        ("^----!", "^---!"),
        ("--a--|", "--a-|"),
    ],
    ids=["a value's tick", "the end's tick", "a value", "unsubscribing", "the source"],
)
def test_one_wrong_thing_is_told_and_nothing_is_painted(folder: Path, right: str, wrong: str) -> None:
    Gallery.play(folder).write()
    before = {path: path.read_bytes() for path in folder.glob("*.svg")}
    (folder / "text.marble").write_text(TEXT.replace(right, wrong))

    with pytest.raises(AssertionError, match="text() selects the words".replace("(", r"\(").replace(")", r"\)")):
        Gallery.play(folder)

    assert {path: path.read_bytes() for path in folder.glob("*.svg")} == before


def test_everything_wrong_is_told_at_once(folder: Path) -> None:
    (folder / "text.marble").write_text(TEXT.replace("--H--|", "-H---|"))
    (folder / "usage.marble").write_text("% unreadable\nwarm src: -\n")
    (folder / "always.marble").write_text("% raises\n> nothing\nout: -\n")

    with pytest.raises(AssertionError) as wrong:
        Gallery.play(folder)

    for said in ("played    --H--|", "usage.marble, line 2: 'warm src: -'", "NameError: name 'nothing'"):
        assert said in str(wrong.value)


def test_a_changed_picture_or_page_is_stale(folder: Path) -> None:
    Gallery.play(folder).write()
    for name in ("text.svg", "README.md"):
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"text()", b"test()", 1))

        assert Gallery.play(folder).stale() == [path]
        assert Gallery.play(folder).write() == [path]


def test_a_picture_without_its_diagrams_is_removed(folder: Path) -> None:
    Gallery.play(folder).write()
    (folder / "usage.marble").unlink()

    assert folder / "usage.svg" in Gallery.play(folder).stale()
    Gallery.play(folder).write()
    assert not (folder / "usage.svg").exists()


@pytest.mark.parametrize("name", ["README.md", "text.svg"])
def test_what_is_not_ours_is_never_written_over(folder: Path, name: str) -> None:
    (folder / name).write_text("mine")

    with pytest.raises(ValueError, match=rf"{name} was not made by"):
        Gallery.play(folder).write()

    assert (folder / name).read_text() == "mine"
    assert len(list(folder.iterdir())) == 4


def test_pictures_of_others_stay(folder: Path) -> None:
    (folder / "logo.svg").write_text("<svg/>")
    Gallery.play(folder).write()

    assert (folder / "logo.svg").read_text() == "<svg/>"


def test_a_folder_without_diagrams_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.marble file"):
        Gallery.play(tmp_path)
