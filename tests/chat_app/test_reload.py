"""Reload at any moment: the page's final text is the generation's, and nothing is there twice."""

from __future__ import annotations

import random

import pytest

from rxrouter.testing import STORY, Act, Exchange, Reply, answer
from tests.chat_app.browser import Browser, Tab
from tests.chat_app.support import answered, ask, chat

THOUGHT = "They want a story, and it should have the sea in it."
NEVER = len(STORY) + 1

SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 200))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_reloads_at_any_moment_the_page_has_the_whole_answer_once(browser: Browser, seed: int) -> None:
    chance = random.Random(seed)
    asked: list[Exchange] = []
    cut = chance.randrange(3) == 0

    def reply(exchange: Exchange) -> Reply:
        asked.append(exchange)
        events = answer(STORY, reasoning=THOUGHT)
        if cut and len(asked) == 1:
            return Reply((*Reply.of(events[: chance.randrange(len(events) - 3)], rate=300).steps, Act.CUT))
        return Reply.of(events, rate=300)

    async with chat(browser, reply) as (_, tab, _server):
        await ask(tab, "A story?")
        for _ in range(chance.randrange(1, 4)):
            await _moment(tab, chance)
            await tab.reload()
        assert await answered(tab) == STORY
        assert await tab.text(".reasoning p") == THOUGHT
        assert await tab.run("[...document.querySelectorAll('.question')].map((q) => q.textContent)") == ["A story?"]
        assert len(asked) == 1 + cut


async def _moment(tab: Tab, chance: random.Random) -> None:
    """Now, before the page has noticed anything; or when so much, or all, is said."""
    if chance.randrange(4):
        said = f"document.querySelector('.text')?.textContent.length >= {chance.randrange(NEVER)}"
        await tab.until(f"{said} || document.querySelector('[aria-busy=false]')")
