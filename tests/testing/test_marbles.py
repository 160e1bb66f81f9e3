from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from reactivex import Observable, operators as ops

from rxrouter import StatusError, TruncatedStreamError
from rxrouter.testing import Heard, MarbleSpec, Played, Told

WORDS = """% words
values: {"a": chunk(content="Hel"), "b": chunk(content="lo"), "H": "Hel", "L": "lo", "x": StatusError(502)}
cold src:  ---a-b-|
subs src:  ^------!
> src.pipe(text())
out:       ---H-L-|
"""


def spec(folder: Path, text: str, **names: Any) -> MarbleSpec:
    (folder / "x.marble").write_text(text)
    (found,) = MarbleSpec.load(folder / "x.marble", names)
    return found


def wrongs(folder: Path, text: str) -> list[str]:
    with pytest.raises(AssertionError) as wrong:
        spec(folder, text).check()
    return str(wrong.value).splitlines()


def test_play_tells_who_came_and_left_when_and_was_told_what(tmp_path: Path) -> None:
    played = spec(tmp_path, WORDS).play()

    assert isinstance(played, Played)
    told = (Told(3, "value", "Hel"), Told(5, "value", "lo"), Told(7, "complete"))
    assert played.readers == {"": Heard(0, 7, told)}
    (heard,) = played.sources["src"]
    assert (heard.since, heard.until, [one.tick for one in heard.told]) == (0, 7, [3, 5, 7])
    with pytest.raises(AttributeError):
        played.readers = {}  # type: ignore[misc]


def test_check_returns_what_was_played(tmp_path: Path) -> None:
    diagram = spec(tmp_path, WORDS)

    assert diagram.check().readers == diagram.play().readers


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("out:       ---H-L-|", "out:       --H--L-|", ["out        expected  --H--L-|", "played    ---H-L-|"]),
        ("out:       ---H-L-|", "out:       ---H-H-|", ["out        expected  ---H-H-|", "played    ---H-L-|"]),
        ("out:       ---H-L-|", "out:       ---H-L--|", ["out        expected  ---H-L--|", "played    ---H-L-|"]),
        ("out:       ---H-L-|", "out:       ---H-L-#", ["out        expected  ---H-L-#", "played    ---H-L-|"]),
        ("^------!", "^-----!", ["subs src   expected  ^-----!", "played    ^------!"]),
        ("^------!", "-^-----!", ["subs src   expected  -^-----!", "played    ^------!"]),
        ("^------!", "^-------", ["subs src   expected  ^-------", "played    ^------!"]),
        ("^------!", "--------", ["subs src   expected  (none)", "played    ^------!"]),
        ('"L": "lo"', '"L": "la"', ["out        expected  ---H-L-|", "played    ---H-?-|"]),
    ],
)
def test_one_wrong_thing_makes_a_diagram_wrong(tmp_path: Path, right: str, wrong: str, said: list[str]) -> None:
    place, expected, played, *_ = wrongs(tmp_path, WORDS.replace(right, wrong))

    assert place == f"{tmp_path / 'x.marble'}, line 1: words"
    assert [expected, played.strip()] == said
    assert expected.index(said[0].split()[-1]) == played.index(said[1].split()[-1])  # one under the other


def test_rows_stand_under_one_another_however_long_a_name_is(tmp_path: Path) -> None:
    text = WORDS.replace("src", "the_only_source").replace("^------!", "^-----!")
    _, expected, played = wrongs(tmp_path, text)

    assert expected.index("^-----!") == played.index("^------!")


def test_a_wrong_value_is_told_with_its_tick(tmp_path: Path) -> None:
    lines = wrongs(tmp_path, WORDS.replace('"L": "lo"', '"L": "la"'))

    assert [line.strip() for line in lines[3:]] == ['tick 5 expected: "la"', 'tick 5 played: "lo"']


def test_every_subscription_is_expected_where_one_is(tmp_path: Path) -> None:
    twice = """% twice
values: {"x": ValueError("no")}
cold src:  -a-#(x)
subs src:  ^--!
subs src:  ---^--!
> src.pipe(ops.retry(2))
out:       -a--a-#(x)
"""
    spec(tmp_path, twice).check()

    assert wrongs(tmp_path, twice.replace("subs src:  ---^--!\n", ""))[1:] == [
        "subs src   expected  ^--!",
        "           played    ^--!",
        "subs src   expected  (none)",
        "           played    ---^--!",
    ]


def test_that_nobody_subscribes_can_be_expected(tmp_path: Path) -> None:
    other = "% one of two\ncold src: -a-|\ncold other: -b-|\nsubs other: ----\n> src\nout: -a-|\n"
    spec(tmp_path, other).check()

    assert wrongs(tmp_path, other.replace("> src", "> rx.merge(src, other)").replace("out: -a-|", "out: -(ab)-|"))


def test_a_hot_source_speaks_to_who_is_there(tmp_path: Path) -> None:
    played = spec(
        tmp_path,
        """% hot
hot src:  -a-b-^-c-d-|
subs src:      ^---!
> src.pipe(ops.take(2))
out:           --c-(d|)
""",
    ).check()

    assert [told.tick for told in played.sources["src"][0].told] == [2, 4]


def test_readers_come_and_leave_each_at_its_time(tmp_path: Path) -> None:
    spec(
        tmp_path,
        """% three readers
hot src:      -a-b-c-d-|
subs src:     ^----!
subs src:     --^-----!
subs src:     ------^--!
> src
leave:        -----!
out:          -a-b-
reader b:     --^-----!
out b:        ---b-c-d
reader late:  ------^--
out late:     -------d-|
""",
    ).check()


def test_readers_come_before_others_leave_and_both_before_sources_speak(tmp_path: Path) -> None:
    spec(
        tmp_path,
        """% at one tick
hot src:    -a-b-c|
subs src:   ^----!
> src.pipe(ops.share())
leave:      ---!
out:        -a
reader b:   ---^-!
out b:      ---b
""",
    ).check()


def test_a_reader_that_never_came_first_needs_no_plain_out(tmp_path: Path) -> None:
    spec(tmp_path, "% b\ncold src: -a-|\n> src\nreader b: --^--\nout b: ---a-|\n").check()


def test_what_comes_after_the_expected_end_is_wrong(tmp_path: Path) -> None:
    endless = "% endless\ncold src: -a-\n> rx.merge(src, rx.timer(50.0).pipe(ops.map(lambda _: 'z')))\nout: -a-\n"

    assert wrongs(tmp_path, endless)[-1].strip() == 'tick 50 played: "z"'


def test_an_endless_timer_ends_with_the_play(tmp_path: Path) -> None:
    assert len(wrongs(tmp_path, "% endless\n> rx.interval(1.0)\nout: -\n")) < 30


def test_a_value_between_two_ticks_is_never_at_one(tmp_path: Path) -> None:
    lines = wrongs(tmp_path, "% half\ncold src: a-|\n> src.pipe(ops.delay(0.5))\nout: a-|\n")

    assert lines[1:3] == ["out        expected  a-|", "           played    …a…|"]
    assert 'tick 0.5 played: "a"' in lines[4]


@pytest.mark.parametrize(
    ("raised", "right"),
    [
        ("StatusError(502)", True),
        ("StatusError(503)", False),
        ("StatusError(502, retry_after=7.0)", False),
        ("TruncatedStreamError()", False),
        ("ValueError('HTTP 502')", False),
    ],
)
def test_errors_are_the_same_by_type_text_and_facts(tmp_path: Path, raised: str, right: bool) -> None:  # noqa: FBT001 - a case
    text = f'% raises\nvalues: {{"x": StatusError(502)}}\n> rx.throw({raised})\nout: #(x)\n'
    if right:
        spec(tmp_path, text).check()
    else:
        assert any("expected: StatusError" in line for line in wrongs(tmp_path, text))


def test_errors_are_the_same_inside_of_values(tmp_path: Path) -> None:
    spec(
        tmp_path,
        """% news
values: {"r": Restarted(attempt=2, cause=StatusError(502))}
cold src: -r-|
> src.pipe(ops.map(lambda _: Restarted(attempt=2, cause=StatusError(502))))
out:      -r-|
""",
    ).check()


def test_an_error_without_a_name_is_an_exception_of_its_sign(tmp_path: Path) -> None:
    played = spec(tmp_path, "% error\ncold src: -#\n> src\nout: -#\n").check()

    assert repr(played.readers[""].told[-1].what) == "Exception('#')"


def test_diagrams_know_names_that_they_are_given(tmp_path: Path) -> None:
    def twice(source: Observable[str]) -> Observable[str]:
        return source.pipe(ops.map(lambda value: 2 * str(value)))

    spec(
        tmp_path,
        '% yours\nvalues: {"A": "aa"}\ncold src: -a-|\n> src.pipe(twice)\nout: -A-|\n',
        twice=twice,
    ).check()


def test_python_goes_on_in_indented_lines(tmp_path: Path) -> None:
    spec(
        tmp_path,
        """% long
values: {"a": "Hel",

  "b": "lo"}
cold src: -a-b-|
> src.pipe(
    ops.map(lambda word: word),
  )
out:      -a-b-|
""",
    ).check()


@pytest.mark.parametrize(
    ("values", "expression", "said"),
    [
        ('{"a": chunkk()}', "src", "line 2, values of 'mine': NameError: name 'chunkk' is not defined"),
        ('{"a": 1,\n  "b": 1 / 0}', "src", "line 3, values of 'mine': ZeroDivisionError: division by zero"),
        ('{"a": 1,\n  "b": }', "src", "line 3, values of 'mine': SyntaxError"),
        ("{}", "src.pipe(texxt())", "line 4, expression of 'mine': NameError: name 'texxt' is not defined"),
        ("{}", "src.pipe(\n  text(choise=1))", "line 5, expression of 'mine': TypeError"),
        ("{}", "src.pipe(\n  text(", "line 5, expression of 'mine': SyntaxError"),
        ("{}", "'src'", "line 4, expression of 'mine': TypeError: it makes a str, no Observable"),
    ],
)
def test_an_error_in_the_diagrams_own_python_says_where(
    tmp_path: Path, values: str, expression: str, said: str
) -> None:
    diagram = spec(tmp_path, f"% mine\nvalues: {values}\ncold src: -a-|\n> {expression}\nout: -a-|\n")

    with pytest.raises(ValueError, match="mine") as wrong:
        diagram.check()

    assert str(wrong.value).startswith(f"{tmp_path / 'x.marble'}, {said}")


def test_an_error_that_values_does_not_know_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.marble, line 1: mine: values has no error 'x'"):
        spec(tmp_path, "% mine\ncold src: -#(x)\n> src\nout: -#\n").play()


@pytest.mark.parametrize(
    ("lines", "number", "said"),
    [
        ("-a-b-|", 2, "no line of a diagram"),
        ("warm src: --a", 2, "no line of a diagram"),
        ("x = ---a-|", 2, "no line of a diagram"),
        ("[styles]", 2, "no line of a diagram"),
        ("cold src: -a 3s b-|", 2, "time jumps"),
        ("cold src: -a-!", 2, "'!' is no mark"),
        ("cold src: -a\nhot src: -a", 3, "this line already"),
        ("values: {}\nvalues: {}", 3, "this line already"),
        ("> src\n> src", 3, "this line already"),
        ("out: -\nout: -", 3, "this line already"),
        ("subs src: -!", 2, "one ^ where"),
        ("leave: ---", 2, "one ! where"),
        ("reader b: ---", 2, "a reader has a ^"),
        ("cold src: -a\nout: -a", 1, "an expression (>)"),
        ("> src", 1, "what comes out of it (out:)"),
        ("> src\nout: -\nout b: -", 1, "reader b and out b belong together"),
        ("> src\nout: -\nreader b: ^", 1, "reader b and out b belong together"),
        ("> src\nleave: -!\nreader b: ^\nout b: -", 1, "leave: is the first reader's"),
        ("> src\nout: -\nsubs sorce: ^", 1, "there is no source sorce"),
        ("cold src: -\n> src\nout: -\nsubs src: ---\nsubs src: ^", 1, "a subscription has a ^"),
    ],
)
def test_a_line_that_can_not_be_read_is_told_with_its_number(
    tmp_path: Path, lines: str, number: int, said: str
) -> None:
    text = f"% mine\n{lines}\n"

    with pytest.raises(ValueError, match=r"x\.marble, line") as wrong:
        spec(tmp_path, text)

    place, _, message = str(wrong.value).partition(": ")
    assert place == f"{tmp_path / 'x.marble'}, line {number}"
    assert said in message
    assert number == 1 or repr(text.splitlines()[number - 1]) in message


def test_a_line_before_the_first_title_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1: 'cold src: -a': a diagram begins with its % title"):
        spec(tmp_path, "cold src: -a\n% late\n")


def test_a_file_has_its_diagrams_in_order(tmp_path: Path) -> None:
    (tmp_path / "x.marble").write_text(WORDS + "\n" + WORDS.replace("% words", "% again", 1))

    assert [diagram.title for diagram in MarbleSpec.load(tmp_path / "x.marble")] == ["words", "again"]


def test_a_sign_is_as_a_row_has_it() -> None:
    played = Played({}, {}, {"H": "Hel", "x": TruncatedStreamError(), "#": Exception("#")})

    told = [
        Told(0, "value", "Hel"),
        Told(0, "value", "a"),
        Told(0, "value", "lo"),
        Told(0, "error", TruncatedStreamError()),
        Told(0, "error", StatusError(502)),
        Told(0, "complete"),
    ]
    assert [played.sign(one) for one in told] == ["H", "a", "?", "#(x)", "#", "|"]


def test_a_chunk_has_its_parts_where_they_belong(tmp_path: Path) -> None:
    diagram = spec(
        tmp_path,
        """% parts
values: {"a": chunk(content="Hi", finish_reason="stop", native_finish_reason="eos", usage={"cost": 0.5})}
cold src: a|
> src
out: a|
""",
    )

    (told, _) = diagram.check().readers[""].told
    assert msgspec.to_builtins(told.what) == {
        "choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop", "native_finish_reason": "eos"}],
        "usage": {"cost": 0.5},
    }
