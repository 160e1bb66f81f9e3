from __future__ import annotations

from typing import Any

import pytest

from rxrouter import Image
from rxrouter.operators import images
from tests.operators.support import chunk, play, subscribed_scheduler

PNG = "data:image/png;base64,iVBORw0K"
FIRST = chunk({"images": [{"type": "image_url", "index": 0, "image_url": {"url": PNG}}]})
OTHER = {"images": [{"image_url": {"url": "https://a.example/1.png"}}]}


def test_images_emits_each_picture_whole() -> None:
    heard, subscription = play(images(), (1, chunk({"content": "x"})), (2, FIRST), (3, None))

    assert heard == [(2, Image(PNG, 0)), (3, None)]
    assert subscription == (0, 3)


def test_images_of_nothing_is_nothing() -> None:
    assert play(images(), (1, None))[0] == [(1, None)]


def test_images_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(images(), (1, FIRST), (2, error))[0] == [(1, Image(PNG, 0)), (2, error)]


def test_images_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(images(), (1, FIRST), (9, FIRST), disposed=5)

    assert (heard, subscription) == ([(1, Image(PNG, 0))], (0, 5))


def test_images_is_of_one_choice() -> None:
    both = chunk({"content": "x"}, OTHER)

    assert play(images(choice=1), (1, both), (2, None))[0] == [(1, Image("https://a.example/1.png")), (2, None)]


def test_images_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(images())

    assert reached is given


def test_an_image_has_the_bytes_of_its_data_url() -> None:
    assert Image(PNG).media_type == "image/png"
    assert Image(PNG).data == b"\x89PNG\r\n"


def test_an_image_elsewhere_has_no_bytes() -> None:
    assert (Image("https://a.example/1.png").media_type, Image("https://a.example/1.png").data) == (None, None)


def test_bytes_that_are_none_are_told() -> None:
    with pytest.raises(ValueError, match="base64"):
        _ = Image("data:image/png;base64,???").data


def test_an_image_does_not_fill_a_screen_with_its_repr() -> None:
    assert len(repr(Image(PNG * 1000))) < 60


@pytest.mark.parametrize("image", [{}, {"image_url": None}, {"image_url": {"url": ""}}, {"image_url": {"url": 7}}])
def test_what_has_no_url_is_no_image(image: dict[str, Any]) -> None:
    assert play(images(), (1, chunk({"images": [image]})), (2, None))[0] == [(2, None)]
