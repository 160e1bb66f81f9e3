from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rxrouter import ChatChunk, StatusError, Usage
from rxrouter.testing import MarbleSpec
from rxrouter.testing.describing import describe
from rxrouter.testing.marbles import chunk
from rxrouter.testing.painting import paint

SVG = "{http://www.w3.org/2000/svg}"


def painted(folder: Path, text: str) -> str:
    (folder / "x.marble").write_text(text)
    return paint("x", [(spec, spec.play()) for spec in MarbleSpec.load(folder / "x.marble")])


def texts(svg: str, *kinds: str) -> list[str]:
    found = ET.fromstring(svg).iter(f"{SVG}text")
    return [element.text or "" for element in found if element.get("class") in kinds]


def hues(svg: str) -> list[str]:
    return [circle.get("class", "") for circle in ET.fromstring(svg).iter(f"{SVG}circle")]


def test_it_shows_what_was_played_whatever_was_expected(tmp_path: Path) -> None:
    text = "% words\ncold src: -a-b-|\nsubs src: ^----!\n> src.pipe(ops.take(1))\nout: -a|\n"

    right = painted(tmp_path, text.replace("-a|", "-(a|)"))
    wrong = painted(tmp_path, text.replace("-a|", "-b-#").replace("^----!", "--^-!"))

    assert right == wrong


def test_it_has_the_title_the_sources_the_expression_and_the_readers(tmp_path: Path) -> None:
    svg = painted(
        tmp_path,
        "% two of them\ncold one: -a-|\nhot two: -b-|\n> rx.merge(one, two)\n"
        "out: -(ba)\nreader late: --^\nout late: ---a|\n",
    )

    assert texts(svg, "t") == ["two of them"]
    assert texts(svg, "n") == ["one", "one", "hot two", "reader", "reader late"]  # two readers of a cold source
    assert texts(svg, "p") == ["rx.merge(one, two)"]


def test_brackets_are_under_sources_and_under_readers_that_come_or_leave(tmp_path: Path) -> None:
    def brackets(rows: str) -> int:
        return painted(tmp_path, f"% brackets\ncold src: -a-|\n> src\n{rows}").count('class="w"')

    assert brackets("out: -a-|\n") == 1
    assert brackets("leave: --!\nout: -a\n") == 2
    assert brackets("reader b: -^\nout b: --a-|\n") == 2


def test_what_nobody_heard_is_faint(tmp_path: Path) -> None:
    left = painted(tmp_path, "% left\ncold src: a-b-c-d\n> src\nleave: ---!\nout: a-b\n")
    hot = painted(tmp_path, "% hot\nhot src: a-^-b-|\n> src\nout: --b-|\n")
    never = painted(tmp_path, "% never\ncold src: a-|\ncold other: z|\n> src\nout: a-|\n")

    assert texts(left, "m") == ["a", "b", "a", "b"]
    assert texts(left, "m f") == ["c", "d"]
    assert texts(hot, "m f") == ["a"]
    assert texts(never, "m f") == ["z"]


def test_what_nobody_heard_does_not_make_a_picture_long(tmp_path: Path) -> None:
    svg = painted(tmp_path, f"% left\ncold src: {'a' * 300}\n> src\nleave: --!\nout: aa\n")

    assert len(texts(svg, "m f")) < 10


def test_attempts_after_one_another_share_a_lane_and_attempts_at_once_do_not(tmp_path: Path) -> None:
    retried = painted(tmp_path, "% retry\ncold src: -a-#\n> src.pipe(ops.retry(2))\nout: -a--a-#\n")
    merged = painted(tmp_path, "% merge\ncold src: -a-|\n> rx.merge(src, src)\nout: -(aa)|\n")

    assert texts(retried, "n") == ["src", "reader"]
    assert texts(merged, "n") == ["src", "src", "reader"]


def test_one_name_has_one_colour_in_the_whole_picture(tmp_path: Path) -> None:
    svg = painted(
        tmp_path,
        "% one\ncold src: -a-b-|\n> src\nout: -a-b-|\n\n% two\ncold src: -b-|\n> src\nout: -b-|\n",
    )

    a, b, *rest = hues(svg)
    assert a != b
    assert rest == [a, b, b, b]


def test_no_two_names_of_a_diagram_have_one_colour_while_there_are_colours(tmp_path: Path) -> None:
    first, second = "abcdefg", "cxyz"
    svg = painted(
        tmp_path,
        "".join(f"% {row}\ncold src: {row}|\n> src.pipe(ops.take(0))\nout: |\n\n" for row in (first, second)),
    )

    assert len(set(hues(svg)[: len(first)])) == len(first)
    assert len(set(hues(svg)[len(first) :])) == len(second)


def test_names_are_explained_once_in_each_diagram(tmp_path: Path) -> None:
    svg = painted(
        tmp_path,
        """% explained
values: {"a": chunk(content="Hel"), "H": "Hel", "x": StatusError(502), "z": "not on any lane"}
cold src: -a-a-k-#(x)
> src.pipe(ops.map(lambda it: it if it == "k" else "Hel"))
out: -H-H-k-#(x)
""",
    )

    assert texts(svg, "v") == ['chunk "Hel"', "StatusError: HTTP 502", '"Hel"']


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("src.pipe(\n    text(),\n    ops.take(1),\n  )", "src.pipe(text(), ops.take(1),)"),
        (
            "src.pipe(ops.map(lambda word: word.upper() + word.title()), ops.filter(lambda word: 'é' in word.lower()))",
            "src.pipe(ops.map(lambda word: …), ops.filter(lambda word: …))",
        ),
        (
            "(lambda seen: src.pipe(ops.map(lambda word: seen.append(word) or word), ops.map(lambda word: word)))([])",
            "(lambda seen: src.pipe(ops.map(lambda word: …), ops.map(lambda word: …)))([])",
        ),
    ],
)
def test_an_expression_is_as_in_the_file_and_says_less_where_it_is_long(
    tmp_path: Path, expression: str, shown: str
) -> None:
    svg = painted(tmp_path, f"% long\ncold src: |\n> {expression}\nout: |\n")

    assert " ".join(texts(svg, "p")) == shown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Hel", '"Hel"'),
        ('{"a": ', """'{"a": '"""),
        (7, "7"),
        (["a", "b"], '["a", "b"]'),
        (chunk(content="Hel"), 'chunk "Hel"'),
        (chunk(role="assistant", content=""), "chunk without content"),
        (chunk(reasoning="hm"), 'chunk reasoning "hm"'),
        (chunk(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]), 'chunk reasoning "encrypted"'),
        (chunk(refusal="no"), 'chunk refusal "no"'),
        (chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]), "chunk tool call f{"),
        (chunk(images=[{}], annotations=[{}], audio={"data": "x"}), "chunk citation, image, audio"),
        (chunk(content="o", finish_reason="stop", usage={"cost": 1}), 'chunk "o", finish stop, usage'),
        (ChatChunk(), "chunk without content"),
        (Usage(cost=0.5), "Usage(cost=0.5)"),
        (StatusError(502, message="Bad"), "StatusError: HTTP 502: Bad"),
        (StatusError(502, message="Bad" * 20), "StatusError"),
        ("x" * 50, '"' + "x" * 38 + "…"),
    ],
)
def test_a_value_is_described_by_what_it_carries(value: Any, said: str) -> None:
    assert describe(value, 40) == said


def test_an_error_and_a_group_are_in_one_pile(tmp_path: Path) -> None:
    svg = painted(tmp_path, '% pile\nvalues: {"x": ValueError("no")}\ncold src: -(ab#(x))\n> src\nout: -(ab#(x))\n')

    assert texts(svg, "m") == ["a", "b", "a", "b"]
    assert texts(svg, "r") == ["x", "x", "x"]
    assert not re.search(r'class="e', svg)
