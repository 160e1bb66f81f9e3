"""Typed growth against msgspec: the end, what can be read before it, and what is refused when."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType

from rxrouter import AnswerDecodeError
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.partial import PartialJSON
from rxrouter._wire.place import place_of
from tests.wire.json_support import Nothing, cut, cuts, told

T = TypeVar("T")
Name = NewType("Name", str)


class Unit(enum.Enum):
    gram = "g"
    litre = "l"


class Ingredient(Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    how_much: float
    unit: Unit = Unit.gram
    note: str | None = None


class Heat(Struct, tag="heat"):
    degrees: int


class Wait(Struct, tag="wait"):
    minutes: Annotated[int, Meta(ge=0)]
    why: str = ""


class Step(Struct, forbid_unknown_fields=True):
    text: str
    uses: tuple[Ingredient, ...] = ()
    action: Heat | Wait | None = None


class Pair(Struct, Generic[T]):
    left: T
    right: list[T]


class Checked(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Point(Struct, array_like=True):
    x: int
    y: int


@dataclass
class Size:
    width: int
    name: str


class Tags(TypedDict):
    main: str


class Both(NamedTuple):
    one: str
    two: int


class Recipe(Struct, tag=True):
    title: Name
    ingredients: Sequence[Ingredient]
    steps: list[Step]
    best: Ingredient
    when: dt.datetime
    variants: list[Recipe] = []
    base: Recipe | None = None
    pair: Pair[str] | None = None
    extra: dict[str, Any] = {}
    more: object = None
    sizes: Mapping[str, list[int]] = {}
    key: uuid.UUID | None = None
    price: Decimal | None = None
    code: Annotated[str, Meta(max_length=80)] = ""
    label: Annotated[str, Meta(description="shown to people")] = "none"
    kind: Literal["sweet", "sour"] = "sweet"
    span: Checked | None = None
    at: Point | None = None
    box: Size | None = None
    tags: Tags | None = None
    both: Both | None = None
    number: int | str | None = None
    words: set[str] = set()
    data: bytes = b""
    unset: str | UnsetType = UNSET


texts = st.text(max_size=6)
ingredients = st.builds(
    Ingredient, name=texts, how_much=st.floats(0, 1e9), unit=st.sampled_from(Unit), note=st.none() | texts
)
actions = st.none() | st.builds(Heat, st.integers(0, 300)) | st.builds(Wait, st.integers(0, 9), why=texts)
steps = st.builds(Step, text=texts, uses=st.lists(ingredients, max_size=2).map(tuple), action=actions)
plain = st.dictionaries(texts, st.none() | st.booleans() | texts | st.lists(st.integers(-9, 9)), max_size=2)


def recipes(inner: st.SearchStrategy[Recipe]) -> st.SearchStrategy[Recipe]:
    return st.builds(
        Recipe,
        title=texts,
        ingredients=st.lists(ingredients, max_size=3),
        steps=st.lists(steps, max_size=3),
        best=ingredients,
        when=st.datetimes(timezones=st.just(dt.UTC)),
        variants=st.lists(inner),
        base=st.none() | inner,
        pair=st.none() | st.builds(Pair, left=texts, right=st.lists(texts, max_size=2)),
        extra=plain,
        more=plain,
        sizes=st.dictionaries(texts, st.lists(st.integers(-9, 9), max_size=2), max_size=2),
        key=st.none() | st.uuids(),
        price=st.none() | st.decimals(0, 10, places=2),
        code=texts,
        label=texts,
        kind=st.sampled_from(["sweet", "sour"]),
        span=st.none() | st.builds(Checked, st.integers(0, 4), st.integers(5, 9)),
        at=st.none() | st.builds(Point, st.integers(), st.integers()),
        box=st.none() | st.builds(Size, st.integers(), texts),
        tags=st.none() | st.builds(Tags, main=texts),
        both=st.none() | st.builds(Both, texts, st.integers()),
        number=st.none() | st.integers() | texts,
        words=st.sets(texts, max_size=2),
        data=st.binary(max_size=4),
        unset=st.just(UNSET) | texts,
    )


recipe = st.recursive(recipes(st.nothing()), recipes, max_leaves=3)
Few = Annotated[list[str], Meta(max_length=5)]
TYPES: dict[Any, st.SearchStrategy[Any]] = {
    Recipe: recipe,
    list[Ingredient]: st.lists(ingredients),
    dict[str, Pair[str]]: st.dictionaries(texts, st.builds(Pair, left=texts, right=st.lists(texts))),
    Heat | Wait: st.builds(Heat, st.integers()) | st.builds(Wait, st.integers(0)),
    Few: st.lists(texts, max_size=5),
    str: texts,
    int: st.integers(),
    Any: plain,
}
typed = st.sampled_from(list(TYPES)).flatmap(lambda kind: TYPES[kind].map(lambda value: (kind, value)))


@st.composite
def documents(draw: st.DrawFn, things: st.SearchStrategy[tuple[Any, Any]] = typed) -> tuple[Any, str]:
    kind, value = draw(things)
    spelling = msgspec.json.format(msgspec.json.encode(value), indent=draw(st.sampled_from([-1, 0, 2])))
    return kind, spelling.decode()


class Leaf(Struct):
    name: str = ""
    notes: list[str] = []
    size: float | None = None


class Tree(Struct):
    title: str = ""
    leaf: Leaf = msgspec.field(default_factory=Leaf)
    leaves: list[Leaf] = []
    by_name: dict[str, Leaf] = {}
    anything: Any = None


leaves = st.builds(Leaf, texts, st.lists(texts, max_size=2), st.none() | st.floats(0, 9))
trees = st.builds(
    Tree, texts, leaves, st.lists(leaves, max_size=2), st.dictionaries(texts, leaves, max_size=2), st.none() | plain
)


def grown(kind: Any, pieces: Sequence[str]) -> list[Any]:
    reader, heard = PartialJSON(place_of(kind)), list[Any]()
    for piece in pieces:
        reader.feed(piece)
        reader.tell(heard.append)
    reader.finish()
    reader.tell(heard.append)
    return heard


def readable(value: Any) -> None:
    """Reads all fields of all Structs."""
    if isinstance(value, Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    for inner in as_list(value) or as_object(value).values():
        readable(inner)


@given(documents(), cuts)
def test_the_last_value_is_that_of_msgspec(document: tuple[Any, str], at: list[float]) -> None:
    kind, text = document

    *_, last = grown(kind, cut(text, at))

    expected = msgspec.json.decode(text, type=kind)
    assert (last, repr(last)) == (expected, repr(expected))


@given(documents(recipe.map(lambda value: (Recipe, value))), cuts)
def test_each_value_is_an_instance_with_all_fields_and_keeps_its_own(
    document: tuple[Any, str], at: list[float]
) -> None:
    reader, kept = PartialJSON(place_of(Recipe)), list[tuple[Any, str]]()

    def look(value: Any) -> None:
        assert isinstance(value, Recipe)
        readable(value)
        msgspec.json.encode(value)
        kept.append((value, repr(value)))

    for piece in cut(document[1], at):
        reader.feed(piece)
        reader.tell(look)

    assert [repr(value) for value, _ in kept] == [then for _, then in kept]


@given(documents(trees.map(lambda value: (Tree, value))), cuts)
def test_where_all_can_grow_it_is_that_of_the_repaired_prefix(document: tuple[Any, str], at: list[float]) -> None:
    reader = PartialJSON(place_of(Tree))
    seen, heard = "", list[str]()

    for piece in cut(document[1], at):
        seen += piece
        reader.feed(piece)
        reader.tell(lambda value: heard.append(repr(value)))
        expected = told(seen)
        assert heard[-1:] == ([] if expected is Nothing else [repr(msgspec.convert(expected, Tree))])

    assert all(one != other for one, other in pairwise(heard))


@given(documents(), cuts, st.integers(0, 400), st.sampled_from(['"', "1", "null", "{", "]", ",", "x", "\\"]))
def test_a_document_is_refused_exactly_when_msgspec_refuses_it(
    document: tuple[Any, str], at: list[float], where: int, sign: str
) -> None:
    kind, text = document
    text = text[:where] + sign + text[where + 1 :]
    try:
        expected: Any = [msgspec.json.decode(text, type=kind)]
    except ValueError:
        expected = AnswerDecodeError

    try:
        heard: Any = grown(kind, cut(text, at))[-1:]
    except AnswerDecodeError:
        heard = AnswerDecodeError

    assert heard == expected


def partial(kind: Any, text: str) -> Any:
    """The value after a part of a document."""
    reader, heard = PartialJSON(place_of(kind)), list[Any]()
    reader.feed(text)
    reader.tell(heard.append)
    return heard[-1] if heard else None


def test_a_struct_has_defaults_and_honest_empties_before_its_fields_come() -> None:
    value = partial(Recipe, "{")

    assert (value.title, value.ingredients, value.steps) == ("", [], [])
    assert value.best == Ingredient(name="", how_much=None, unit=Unit.gram)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert (value.when, value.base, value.pair, value.kind, value.label) == (None, None, None, "sweet", "none")
    assert value.unset is UNSET


def test_empties_are_not_shared() -> None:
    one, other = partial(Recipe, "{"), partial(Recipe, "{")

    assert one.steps is not other.steps
    assert one.variants is not other.variants
    assert one.best is not other.best


@pytest.mark.parametrize(
    ("field", "begun", "shown"),
    [
        ("title", '"Br', "Br"),
        ("label", '"swe', "swe"),
        ("ingredients", '[{"name":"fl', [Ingredient(name="fl", how_much=None)]),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        ("steps", '[{"text":"mix","uses":[{', [Step("mix", [Ingredient(name="", how_much=None)])]),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        ("best", '{"howMuch":1,"name":"s', Ingredient(name="s", how_much=1.0)),
        ("best", '{"howMuch":1,"unknown":{"a":[1],"name":"s"},"name":"t', Ingredient(name="t", how_much=1.0)),
        ("base", '{"title":"B', "B"),
        ("pair", '{"left":"l","right":["r', Pair("l", ["r"])),
        ("extra", '{"a":[1,{"b":"c', {"a": [1, {"b": "c"}]}),
        ("more", '{"a":[1,{"b":"c', {"a": [1, {"b": "c"}]}),
        ("sizes", '{"a":[1,2,3', {"a": [1, 2]}),
        ("unset", '"x', "x"),
        # These appear when they are whole.
        ("when", '"2026-01-01T00:00:00Z', None),
        ("key", '"3f2504e0-4f89-11d3-9a0c-0305e82c3301', None),
        ("price", '"1.5', None),
        ("code", '"abc', ""),
        ("kind", '"sou', "sweet"),
        ("span", '{"low":1,"high":2', None),
        ("at", "[1,2", None),
        ("box", '{"width":1,"name":"x"', None),
        ("tags", '{"main":"x"', None),
        ("both", '["x",1', None),
        ("number", '"x', None),
        ("words", '["x"', set()),
        ("data", '"eHg=', b""),
    ],
)
def test_what_grows_and_what_waits(field: str, begun: str, shown: Any) -> None:
    value = getattr(partial(Recipe, f'{{"type":"Recipe","{field}":{begun}'), field)

    assert (value.title if isinstance(value, Recipe) else value) == shown


def test_values_that_wait_appear_one_by_one() -> None:
    text = '{"when":"2026-01-01T00:00:00Z","span":{"low":1,"high":2},"steps":[{"action":{"type":"wait","minutes":1}'

    value = partial(Recipe, text)

    assert value.when == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert value.span == Checked(1, 2)
    assert value.steps[0].action == Wait(1)


def test_a_tuple_grows_as_a_list() -> None:
    assert partial(tuple[str, ...], '["a","b') == ["a", "b"]
    assert partial(tuple[str, ...], '["a","b"]') == ("a", "b")


def test_a_struct_that_keeps_its_hash_waits() -> None:
    class Key(Struct, frozen=True, cache_hash=True):
        name: str

    assert partial(list[Key], '[{"name":"a') == []
    assert partial(list[Key], '[{"name":"a"}') == [Key("a")]


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (Recipe, '{"ingredients":[{"name":1', None),
        (Recipe, '{"ingredients":[{"name":1,', "Expected `str`, got `int` - at `$.ingredients[0].name`"),
        (Recipe, '{"ingredients":[{"name":"a"}', "Object missing required field `howMuch` - at `$.ingredients[0]`"),
        (Recipe, '{"title":"a"}', "Object missing required field `ingredients` - at `$`"),
        (Recipe, '{"type":"Secret",', None),
        (Recipe, '{"best":{"howMuch":{}', "Expected `float`, got `object` - at `$.best.howMuch`"),
        (Recipe, '{"best":[]', "Expected `object`, got `array` - at `$.best`"),
        (Recipe, '{"steps":[{"text":"","secret":1}', "Object contains unknown field - at `$.steps[0]`"),
        (Recipe, '{"steps":[{"text":""},{"action":{"type":"secret"}', "Invalid value - at `$.steps[1].action.type`"),
        (Recipe, '{"sizes":{"secret":[1,"x"', "Expected `int`, got `str` - at `$.sizes[...][1]`"),
        (Recipe, '{"kind":"secret"', "Invalid enum value - at `$.kind`"),
        (Recipe, '{"span":{"low":2,"high":1}', "low is above high - at `$.span`"),
        (list[list[int]], "[[1],[2,nul", None),
        (list[list[int]], "[[1],[2,null", "Expected `int`, got `null` - at `$[1][1]`"),
        (Annotated[list[int], Meta(max_length=1)], "[1,2,3", None),
        (Annotated[list[int], Meta(max_length=1)], "[1,2,3]", "Expected `array` of length <= 1 - at `$`"),
        (str, r'"\ud800"', "Input data was truncated - at `$`"),
        (int, "[", None),
        (int, "[]", "Expected `int`, got `array` - at `$`"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_as_soon_as_it_is_whole(kind: Any, text: str, reason: str | None) -> None:
    reader = PartialJSON(place_of(kind))
    if reason is None:
        reader.feed(text)
    else:
        with pytest.raises(AnswerDecodeError) as refused:
            reader.feed(text)
        assert refused.value.reason == reason
        assert refused.value.position in {len(text), len(text) - 1}
        assert "secret" not in str(refused.value)
        assert isinstance(refused.value.__cause__, ValueError)


def test_a_type_that_msgspec_does_not_know_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError):
        place_of(5)
