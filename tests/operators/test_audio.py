from __future__ import annotations

from rxrouter import Audio
from rxrouter.operators import audio
from tests.operators.support import chunk, play, subscribed_scheduler

BEGIN, SOUND = chunk({"audio": {"id": "audio_1"}}), chunk({"audio": {"data": "UklG", "transcript": None}})
END = chunk({"audio": {"transcript": "Hi", "expires_at": 1786465029}})


def test_audio_emits_sound_and_what_it_says() -> None:
    heard, subscription = play(audio(), (1, BEGIN), (2, SOUND), (3, chunk({"content": "x"})), (4, END), (5, None))

    assert heard == [
        (1, Audio("audio_1")),
        (2, Audio(data="UklG")),
        (4, Audio(transcript="Hi", expires_at=1786465029)),
        (5, None),
    ]
    assert subscription == (0, 5)


def test_audio_of_nothing_is_nothing() -> None:
    assert play(audio(), (1, None))[0] == [(1, None)]


def test_audio_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(audio(), (1, SOUND), (2, error))[0] == [(1, Audio(data="UklG")), (2, error)]


def test_audio_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(audio(), (1, SOUND), (9, SOUND), disposed=5)

    assert (heard, subscription) == ([(1, Audio(data="UklG"))], (0, 5))


def test_audio_is_of_one_choice() -> None:
    both = chunk({"audio": {"id": "first"}}, {"audio": {"id": "second"}})

    assert play(audio(choice=1), (1, both), (2, None))[0] == [(1, Audio("second")), (2, None)]


def test_audio_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(audio())

    assert reached is given
