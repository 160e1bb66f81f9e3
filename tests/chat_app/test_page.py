"""The chat's page in a real browser: what a person sees, hears and does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
import reactivex as rx

from rxrouter import ChatChunk, Choice, Delta
from rxrouter.relay.aiohttp import shutdown
from rxrouter.testing import COMMENT, STORY, Act, Exchange, Reply, answer
from tests.chat_app.browser import Browser, Tab
from tests.chat_app.support import (
    COMPLETE,
    FAILED,
    RUNNING,
    STOPPED,
    Held,
    answered,
    ask,
    chat,
    has_said,
    line_to,
    served,
)
from tests.support import proven

THOUGHT = "They want a story, and it should have the sea in it."
WHOLE = Reply.of(answer(STORY, reasoning=THOUGHT, cost=0.00042), rate=400)
EVENTS = answer(STORY, reasoning=THOUGHT)
HALF = Reply((*EVENTS[:60], Act.HANG))
MARKUP = "</p><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\"><b>&amp;</b>"

FOCUS = "document.activeElement.id"


# To the end.


async def test_a_conversation_goes_to_its_end_and_on(browser: Browser) -> None:
    async with chat(browser, _echo) as (_, tab, server):
        await ask(tab, "My name is Ada.")
        assert await answered(tab) == "Heard: My name is Ada."
        await ask(tab, "What is my name?")
        assert await answered(tab, number=2) == "Heard: My name is Ada. | What is my name?"
        assert await tab.run("[...document.querySelectorAll('.question')].map((q) => q.textContent)") == [
            "My name is Ada.",
            "What is my name?",
        ]
        assert len(server.asked) == 2


async def test_text_and_thoughts_come_piece_by_piece(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, _server):
        await tab.run(
            "window.sizes = []; const look = () => sizes.push(document.querySelector('.text').textContent.length);"
            "const all = {subtree: true, characterData: true, childList: true};"
            "new MutationObserver(look).observe(document.querySelector('main'), all)"
        )
        await ask(tab, "A story?")
        assert await answered(tab) == STORY
        assert await tab.text(".reasoning p") == THOUGHT
        sizes = await tab.run("[...new Set(sizes)]")
        assert sizes == sorted(sizes)
        assert len(sizes) > 3


async def test_thoughts_are_open_while_there_is_nothing_else_to_read_and_then_as_one_likes(browser: Browser) -> None:
    steps = Held([*EVENTS[:9], Act.HANG, *EVENTS[9:]])
    async with chat(browser, Reply(steps)) as (_, tab, _server):
        await ask(tab, "A story?")
        await tab.until("document.querySelector('details:not([hidden])')?.open")
        steps.let_go = True
        await answered(tab)
        assert not await tab.run("document.querySelector('details').open")
        await tab.run("document.querySelector('summary').focus()")
        await tab.press("Enter")
        assert await tab.run("document.querySelector('details').open")


async def test_the_bill_and_the_time_to_the_first_words_are_told(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, _server):
        await ask(tab, "A story?")
        await answered(tab)
        facts = await tab.text("figcaption")
        assert facts.startswith("Complete · first words after 0.")
        assert "120 tokens · $0.00042" in facts


# Stop.


@pytest.mark.parametrize("way", ["click", "Escape"])
async def test_stop_ends_it_at_the_model_and_keeps_what_was_said(browser: Browser, way: str) -> None:
    async with chat(browser, HALF) as (_, tab, server):
        await ask(tab, "A story?")
        await has_said(tab, 20)
        await (tab.click("#stop") if way == "click" else tab.press("Escape"))
        said = await answered(tab, STOPPED)
        await server.asked[0].over.wait()
        assert server.asked[0].left_at is not None
        assert len(said) >= 20
        assert STORY.startswith(said)
        assert "cost not told" in await tab.text("figcaption")
        assert await tab.run(FOCUS) == "question"

        await tab.reload()
        assert await answered(tab, STOPPED) == said
        assert len(server.asked) == 1


# Reload, and other readers.


async def test_a_reload_in_the_middle_goes_on(browser: Browser) -> None:
    steps = Held([*EVENTS[:60], Act.HANG, *EVENTS[60:]])
    async with chat(browser, Reply(steps)) as (_, tab, server):
        await ask(tab, "A story?")
        await has_said(tab, 50)
        await tab.reload()
        await has_said(tab, 50)
        assert await tab.run(f"Boolean(document.querySelector('{RUNNING}'))")
        steps.let_go = True
        assert await answered(tab) == STORY
        assert await tab.text(".reasoning p") == THOUGHT
        assert len(server.asked) == 1


async def test_a_reload_shows_the_whole_conversation(browser: Browser) -> None:
    async with chat(browser, _echo) as (_, tab, _server):
        for number, question in enumerate(["One?", "Two?", "Three?"], 1):
            await ask(tab, question)
            await answered(tab, number=number)
        before = await tab.run(
            "[...document.querySelectorAll('.question, .text, figcaption')].map((e) => e.textContent)"
        )
        await tab.reload()
        await answered(tab, number=3)
        await tab.until("[...document.querySelectorAll('.state')].every((state) => state.textContent === 'Complete')")
        after = await tab.run(
            "[...document.querySelectorAll('.question, .text, figcaption')].map((e) => e.textContent)"
        )
        assert after == before


async def test_a_second_tab_sees_the_same_answer_live_and_what_is_asked_next(browser: Browser) -> None:
    steps = Held([*EVENTS[:60], Act.HANG, *EVENTS[60:]])
    async with chat(browser, Reply(steps)) as (window, tab, server):
        await ask(tab, "A story?")
        await has_said(tab, 50)
        other = await window.tab(await tab.run("location.href"))
        await has_said(other, 50)
        assert await other.run(f"Boolean(document.querySelector('{RUNNING}'))")
        steps.let_go = True
        assert await answered(other) == await answered(tab) == STORY

        await ask(tab, "Another?")
        assert await answered(other, number=2) == await answered(tab, number=2) == STORY
        assert await other.run("location.href") == await tab.run("location.href")
        assert len(server.asked) == 2


async def test_a_new_chat_in_another_tab_is_left_alone(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (window, tab, server):
        other = await window.tab(server.url)
        await ask(tab, "A story?")
        await answered(tab)
        assert await other.run("document.querySelectorAll('.turn').length") == 0


async def test_a_connection_that_is_lost_is_taken_up_where_it_was(browser: Browser) -> None:
    steps = Held([*EVENTS[:60], Act.HANG, *EVENTS[60:]])
    async with chat(browser, Reply(steps)) as (_, tab, server):
        await ask(tab, "A story?")
        await has_said(tab, 50)
        await shutdown(server.app)
        await tab.until("document.querySelector('[data-lost]')")
        await tab.until("document.querySelector('figcaption').textContent.includes('the connection is lost')")
        steps.let_go = True
        assert await answered(tab) == STORY
        assert len(server.came_back) == 1
        assert int(server.came_back[0]) > 1
        tab.console.clear()  # the browser's own note of the cut


async def test_a_refusal_on_the_way_to_the_server_ends_nothing(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (window, _tab, server), line_to(server.url) as (url, line):
        line.refusing = "/answers/"
        tab = await window.tab(f"{url}#{await server.ask('A story?')}", before="const later = setTimeout;"
                               "window.setTimeout = (action) => later(action, 50)")  # fmt: skip
        await tab.until("document.querySelector('[data-lost]')")
        line.refusing = ""
        assert await answered(tab) == STORY
        assert await tab.text(".question") == "A story?"
        assert not await tab.run("Boolean(document.querySelector('[data-lost]'))")
        tab.console.clear()  # the browser's own notes of the refusals


async def test_a_server_that_begins_anew_without_memory_says_so_and_can_be_asked_again(browser: Browser) -> None:
    async with browser.window() as window:
        async with served(HALF) as before:
            tab = await window.tab(before.url)
            await ask(tab, "A story?")
            await has_said(tab, 20)
        async with served(WHOLE, port=int(before.url.rsplit(":")[-1][:-1])):
            said = await answered(tab, FAILED)
            assert STORY.startswith(said)
            assert len(said) >= 20
            assert (await tab.text(".problem p")).startswith("The server does not have this answer, or no longer.")
            await tab.click(".again")
            assert await answered(tab) == STORY


async def test_who_goes_away_and_back_has_the_whole_answer_once(browser: Browser) -> None:
    steps = Held([*EVENTS[:60], Act.HANG, *EVENTS[60:]])
    async with chat(browser, Reply(steps)) as (_, tab, server):
        await ask(tab, "A story?")
        await has_said(tab, 50)
        await tab.go("about:blank")
        await tab.go_back()  # which shows the page as it was left, or loads it
        await has_said(tab, 50)
        steps.let_go = True
        assert await answered(tab) == STORY
        assert await tab.text(".reasoning p") == THOUGHT
        assert await tab.run("document.querySelectorAll('.turn').length") == 1
        assert len(server.asked) == 1


async def test_a_hundred_answers_are_there_after_a_reload_each_in_its_place(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        keys = [None, *(f"{number:043}" for number in range(100))]
        for number, (before, key) in enumerate(pairwise(keys)):
            question = {"text": f"Question {number}", "after": before}
            words = [Choice(delta=Delta(content=f"Heard: {number}"))]
            said = ChatChunk(choices=words, debug={"at": 0.5, "attempt": 1, "cost": 0.0})
            server.hub.start(str(key), proven(rx.of(ChatChunk(debug={"question": question}), said)))
        await tab.go(f"{server.url}?#{keys[-1]}")
        await answered(tab, number=100)
        texts = "[...document.querySelectorAll('.question, .text')].map((each) => each.textContent)"
        assert await tab.run(texts) == [text for n in range(100) for text in (f"Question {n}", f"Heard: {n}")]


# Sending.


async def test_nothing_is_not_sent(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        for nothing in ("", " ", "\n \n"):
            await tab.write(nothing)
            await tab.press("Enter")
            await tab.click("#send")
        assert await tab.run(FOCUS) == "question"
        assert await tab.run("document.querySelectorAll('.turn').length + location.hash") == "0"
        assert server.asked == []


async def test_what_is_too_long_is_told_and_nothing_of_it_is_lost(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        await tab.write("a" * 1_000_000)
        await tab.press("Enter")
        assert await tab.text("#told") == "That is 1000000 characters long; the server takes 8000."
        assert await tab.run("document.querySelector('#question').value.length") == 1_000_000
        assert server.asked == []


async def test_sending_twice_at_once_asks_once(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        await tab.write("A story?")
        told = await tab.run(
            "for (let n = 0; n < 3; n++) document.querySelector('#composer').requestSubmit();"
            "document.querySelector('#told').textContent"
        )
        assert told == "One at a time: wait for the answer, or stop it."
        assert await answered(tab) == STORY
        assert await tab.run("document.querySelectorAll('.turn').length") == 1
        assert len(server.asked) == 1


async def test_two_tabs_that_send_at_once_each_have_their_answer(browser: Browser) -> None:
    async with chat(browser, _echo) as (window, tab, server):
        await ask(tab, "One?")
        await answered(tab)
        other = await window.tab(await tab.run("location.href"))
        await answered(other)
        for each, text in ((tab, "Left?"), (other, "Right?")):
            await each.run(f"question = document.querySelector('#question'); question.value = '{text}'")
        await asyncio.gather(*(each.run("question.form.requestSubmit()") for each in (tab, other)))
        for each in (tab, other):
            await each.until(f"document.querySelectorAll('{COMPLETE}').length === 2")
        shown = "[...document.querySelectorAll('.question')].map((each) => each.textContent).join()"
        assert await tab.run(shown) in {"One?,Left?", "One?,Right?"}
        assert await other.run(shown) == "One?,Right?"
        assert len(server.asked) == 3


async def test_a_browser_that_keeps_nothing_for_the_page_can_chat_and_reload(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (window, _tab, server):
        tab = await window.tab(server.url, before="Object.defineProperty(window, 'sessionStorage',"
                               " {get() { throw new DOMException('No.', 'SecurityError') }})")  # fmt: skip
        await ask(tab, "A story?")
        await has_said(tab, 50)
        await tab.reload()
        assert await answered(tab) == STORY


# Failures.


async def test_a_failure_is_told_in_words_and_can_be_tried_again(browser: Browser) -> None:
    failing = True

    def reply(_: Exchange) -> Reply:
        return Reply.error(402, "You owe money to <b>somebody</b>.") if failing else WHOLE

    async with chat(browser, reply) as (_, tab, _server):
        await ask(tab, "A story?")
        await answered(tab, FAILED)
        words = "The model's answer failed. Try again. If it stays so, the server's log says why."
        assert await tab.text(".problem p") == words
        await tab.reload()
        await answered(tab, FAILED)
        assert await tab.text(".problem p") == words
        assert await tab.text(".question") == "A story?"
        failing = False
        await tab.click(".again")
        assert await answered(tab) == STORY
        assert await tab.run("document.querySelectorAll('.turn').length") == 1
        await tab.reload()
        assert await answered(tab) == STORY


async def test_an_answer_that_is_cut_begins_anew_and_both_attempts_are_drawn(browser: Browser) -> None:
    asked: list[Exchange] = []

    def reply(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return WHOLE if len(asked) > 1 else Reply((*answer(STORY)[:30], 0.5, Act.CUT))

    async with chat(browser, reply) as (_, tab, _server):
        await ask(tab, "A story?")
        assert await answered(tab) == STORY
        assert "2 attempts" in await tab.text("figcaption")
        assert await tab.text(".run svg text") == "attempt 2"
        assert {"rest", "line", "of-text", "of-reasoning", "lost", "gap", "complete"} == await _drawn(tab)


async def test_a_question_that_did_not_reach_the_server_stays_and_is_paid_once(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        # What the page can't tell apart: the request is lost, or its answer is.
        await tab.run("window.real = fetch; window.fetch = (...a) => real(...a).then(() => { throw new TypeError() })")
        await ask(tab, "A story?")
        await tab.until("!document.querySelector('#told').hidden")
        assert await tab.text("#told") == "The server can't be reached. Your question is still here; try again."
        assert await tab.run("document.querySelector('#question').value") == "A story?"
        await tab.run("window.fetch = real")
        await tab.click("#send")
        assert await answered(tab) == STORY
        assert await tab.run("document.querySelector('#question').value") == ""
        assert len(server.asked) == 1


async def test_a_new_chat_stays_new_when_it_is_reloaded_and_the_same_question_is_asked_anew(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, server):
        await ask(tab, "A story?")
        await answered(tab)
        await tab.run("window.old = true")
        await tab.click(".new")
        await tab.until("!window.old && document.readyState === 'complete'")
        await tab.reload()
        assert await tab.run("document.querySelectorAll('.turn').length + location.hash") == "0"
        await ask(tab, "A story?")
        assert await answered(tab) == STORY
        assert len(server.asked) == 2


async def test_an_answer_that_the_server_no_longer_has_is_told_in_words(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (window, _tab, server):
        other = await window.tab(f"{server.url}#{'k' * 43}")
        await answered(other, FAILED)
        assert (await other.text(".problem p")).startswith("The server does not have this answer, or no longer.")
        await ask(other, "Do you remember?")
        await other.until("!document.querySelector('#told').hidden")
        assert await other.text("#told") == "The server no longer has this conversation. Start a new chat."
        assert len(other.console) == 1  # the browser's own note of the 410
        other.console.clear()


async def test_an_address_that_can_be_no_answer_s_is_a_new_chat(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (window, _tab, server):
        tab = await window.tab(f"{server.url}#../../nothing")
        assert not await tab.run("document.querySelector('#welcome').hidden")
        await ask(tab, "A story?")
        assert await answered(tab) == STORY


async def test_an_answer_of_the_allowed_length_is_not_called_whole(browser: Browser) -> None:
    async with chat(browser, Reply.of(answer("Once upon", finish="length"))) as (_, tab, _server):
        await ask(tab, "A story?")
        assert await answered(tab) == "Once upon"
        assert "its end is missing" in await tab.text(".problem p")


# What an answer may not do.


async def test_markup_in_an_answer_a_thought_and_a_question_stays_text(browser: Browser) -> None:
    async with chat(browser, Reply.of(answer(MARKUP, reasoning=MARKUP))) as (_, tab, _server):
        await ask(tab, MARKUP)
        assert await answered(tab) == MARKUP
        assert await tab.text(".reasoning p") == MARKUP
        assert await tab.text(".question") == MARKUP
        assert await tab.run("document.title") == "Chat"
        assert await tab.run("document.querySelectorAll('main script, main img, main b').length") == 0


async def test_the_page_runs_no_script_and_loads_nothing_but_its_own(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, _server):
        await tab.run(_TRESPASSES)
        await tab.until("refused.length === 5")
        directives = ["connect-src", "img-src", *2 * ["require-trusted-types-for"], "style-src-elem"]
        assert sorted(await tab.run("refused")) == directives
        assert await tab.run("document.body.children.length") > 1
        tab.console.clear()


# For everybody.


async def test_everything_can_be_done_with_the_keyboard(browser: Browser) -> None:
    async with chat(browser, _failing_first()) as (_, tab, _server):
        assert await tab.run(FOCUS) == "question"
        await tab.write("A story?")
        await tab.press("Tab")
        assert await tab.run(FOCUS) == "send"
        await tab.press("Enter")
        await answered(tab, FAILED)
        await tab.press("Tab", shift=True)
        await tab.press("Tab", shift=True)
        assert await tab.run("document.activeElement.className") == "again"
        assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await tab.press("Enter")
        assert await answered(tab) == STORY
        assert await tab.run(FOCUS) == "question"


async def test_shift_enter_begins_a_line(browser: Browser) -> None:
    async with chat(browser, _echo) as (_, tab, _server):
        await tab.write("One")
        await tab.press("Enter", shift=True)
        await ask(tab, "two")
        assert await answered(tab) == "Heard: One\ntwo"


async def test_every_control_has_a_name_and_every_part_a_heading(browser: Browser) -> None:
    async with chat(browser, WHOLE) as (_, tab, _server):
        await ask(tab, "A story?")
        await answered(tab)
        nodes = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
        named = [(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"]]
        controls = {"button", "link", "textbox", "DisclosureTriangle"}
        assert {role for role, name in named if role in controls and not name} == set()
        assert {
            ("textbox", "Your question"),
            ("button", "Send"),
            ("link", "New chat"),
            ("DisclosureTriangle", "Reasoning"),
            ("heading", "Question"),
            ("heading", "Answer"),
            ("main", "Conversation"),
        } <= set(named)


async def test_what_happens_is_told_once_and_not_word_by_word(browser: Browser) -> None:
    async with chat(browser, Reply.of((COMMENT, *answer(STORY)), rate=90)) as (_, tab, _server):
        await tab.run(
            "window.heard = []; const status = document.querySelector('[role=status]');"
            "new MutationObserver(() => heard.push(status.textContent)).observe(status, {childList: true})"
        )
        await ask(tab, "A story?")
        await answered(tab)
        await tab.until("heard.length")
        assert await tab.run("heard") == ["The answer begins.", f"Answer complete. {STORY}"]
        live = await tab.run(
            "[...document.querySelectorAll('[aria-live], [role=log], [role=alert], [role=status]')].length"
        )
        assert live == 1


async def test_nothing_moves_for_those_who_want_it_so(browser: Browser) -> None:
    async with chat(browser, HALF) as (_, tab, _server):
        await ask(tab, "A story?")
        await tab.until("document.querySelector('.run .now')")
        style = "getComputedStyle(document.querySelector('.run .now')).animationName"
        assert await tab.run(style) == "pulse"
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        assert await tab.run(style) == "none"


async def test_text_stands_out_from_its_ground_by_day_and_by_night(browser: Browser) -> None:
    async with chat(browser, _failing_first()) as (_, tab, _server):
        await ask(tab, "A story?")
        await answered(tab, FAILED)
        await ask(tab, "A story?")
        await answered(tab)
        for dark in (False, True):
            await tab.look(900, 700, dark=dark)
            ratios = await tab.run(_CONTRASTS)
            assert {what: ratio for what, ratio in ratios.items() if ratio < 4.5} == {}
            assert len(ratios) > 8


async def test_a_small_phone_needs_no_sideways_scrolling(browser: Browser) -> None:
    async with chat(browser, Reply.of(answer("https://example.com/" + "a" * 300))) as (_, tab, _server):
        await tab.look(320, 560, touch=True)
        await ask(tab, "b" * 300)
        await answered(tab)
        assert await tab.run("document.documentElement.scrollWidth") == 320
        boxes = await tab.run("[...document.querySelectorAll('button, a, textarea')].filter((e) => e.checkVisibility())"
                              ".map((e) => e.getBoundingClientRect().toJSON())")  # fmt: skip
        assert all(box["left"] >= 0 and box["right"] <= 320 for box in boxes)


async def test_who_reads_at_the_end_stays_there_and_who_reads_above_too(browser: Browser) -> None:
    events = answer(STORY * 5)
    steps = Held([*events[:-60], Act.HANG, *events[-60:]])
    async with chat(browser, Reply(steps)) as (_, tab, _server):
        await tab.look(600, 400)
        await ask(tab, "A long story?")
        await tab.until("document.documentElement.scrollHeight > 900")
        at_end = "innerHeight + scrollY > document.documentElement.scrollHeight - 40"
        await tab.until(at_end)
        await tab.run("scrollTo(0, 100)")
        await tab.until("scrollY === 100")
        steps.let_go = True
        await answered(tab)
        assert await tab.run("scrollY") == 100


def _echo(exchange: Exchange) -> Reply:
    asked = [message["content"] for message in exchange.json["messages"] if message["role"] == "user"]
    return Reply.of(answer("Heard: " + " | ".join(asked)))


def _failing_first() -> Any:
    asked: list[Exchange] = []

    def reply(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return WHOLE if len(asked) > 1 else Reply.error(402, "No money.")

    return reply


async def _drawn(tab: Tab) -> set[str]:
    await tab.until("document.querySelector('.run .complete')")
    return set(await tab.run("[...document.querySelectorAll('.run path')].map((path) => path.getAttribute('class'))"))


_TRESPASSES = """
  window.refused = [];
  addEventListener("securitypolicyviolation", ({effectiveDirective}) => refused.push(effectiveDirective));
  const attempts = [
    () => document.head.append(Object.assign(document.createElement("img"), {src: "https://example.invalid/"})),
    () => document.head.append(Object.assign(document.createElement("style"), {textContent: "p {}"})),
    () => document.head.append(Object.assign(document.createElement("script"), {src: "data:,1"})),
    () => document.body.innerHTML = "<b>",
    () => fetch("https://example.invalid/").catch(() => 0),
  ];
  for (const attempt of attempts) try { attempt() } catch {}
"""

# The contrast of each text with the nearest ground behind it, by WCAG 2.
_CONTRASTS = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
    return color === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : color;
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || ![...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    found[`${element.tagName} ${element.id} ${element.className}`] = (a + 0.05) / (b + 0.05);
  }
  return found;
})()"""
