"""Where a text may be cut: between extended grapheme clusters (UAX #29), what people call characters, and never in one.

The rules are those of the standard or stricter: what is joined here may be two clusters, what is cut is never one. So
they need no property files, and hold for characters that are newer than Python's `unicodedata`.
"""

from __future__ import annotations

import re
from unicodedata import category, combining

_CONTROL = {"Cc", "Zl", "Zp"}  # GB4, GB5: they stand alone, but for CR LF
_LETTERS = re.compile("[\U0001f000-\U0001fffd\U00020000-\U0003ffff]")  # the blocks of emoji and of ideographs
_LATIN = "\u0300"  # below it nothing joins, but for CR LF
_VIRAMA = 9  # the combining class of the signs that join consonants

# What joins the character before it, beside marks (category M): GB9, GB9a, and vowels and finals of GB6 to GB8.
_JOINS_LEFT = re.compile(
    "[\u200c\u200d"  # joiners
    "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # skin tones, tags of flags
    "\u0e33\u0eb3\uff9e\uff9f"  # SARA AM of Thai and Lao, halfwidth voiced marks
    "\u1160-\u11ff\ud7b0-\ud7fb\U00016d63\U00016d67-\U00016d6a]"  # Hangul vowels and finals, Kirat Rai vowels
)
# What joins the character after it: GB9b, the joiner of GB11, and initials of GB6.
_JOINS_RIGHT = re.compile(
    "[\u200d\u1100-\u115f\ua960-\ua97c"  # the joiner of emoji, Hangul initials
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"  # Arabic and Syriac signs that span what follows
    "\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3\U000113d1\U0001193f\U00011941"
    "\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02"  # repha and other prefixed consonants
    "\u1cf5\u1cf6]"  # Vedic signs that join consonants without being marks
)


def boundary(text: str, at: int) -> bool:
    """Whether the text may be cut before its character `at`, if it begins at a boundary itself.

    Args:
        text: Any text; what follows `at` has no say.
        at: From 1 to `len(text) - 1`.
    """
    left, right = text[at - 1], text[at]
    if left < _LATIN and right < _LATIN:
        return right != "\n" or left != "\r"
    before, after = category(left), category(right)
    if before in _CONTROL or after in _CONTROL:
        return True
    if _joins_left(right, after) or _JOINS_RIGHT.match(left) or _is_unknown(left, before):
        return False
    if _is_regional(right):
        return not _regionals(text, at) % 2
    return after != "Lo" or not _ends_in_virama(text, at)


def next_boundary(text: str, at: int) -> int:
    """The first boundary from `at` on; the end of the text, where there is none."""
    while at < len(text) and not boundary(text, at):
        at += 1
    return at


def whole(text: str, seen: int = 0) -> int:
    """How many characters are clusters to which nothing that follows can add: all but the last, but for a newline.

    Args:
        text: What is known, from a boundary on.
        seen: How many of its characters were asked about before; 0 is returned where the others change nothing.
    """
    if text and text[-1] != "\r" and category(text[-1]) in _CONTROL:
        return len(text)
    return next((at for at in range(len(text) - 1, max(seen, 1) - 1, -1) if boundary(text, at)), 0)


def _joins_left(character: str, kind: str) -> bool:
    return kind[0] == "M" or bool(_JOINS_LEFT.match(character)) or _is_unknown(character, kind)


def _is_unknown(character: str, kind: str) -> bool:
    """A character newer than `unicodedata`, which may be a mark; where emoji or ideographs are, it is one of them."""
    return kind == "Cn" and not _LETTERS.match(character)


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals(text: str, at: int) -> int:
    """How many regional indicators are right before `at`: two are a flag (GB12, GB13)."""
    begin = at
    while begin and _is_regional(text[begin - 1]):
        begin -= 1
    return at - begin


def _ends_in_virama(text: str, at: int) -> bool:
    """Whether the text before `at` joins a consonant to come: in its last marks is a virama (GB9c)."""
    while at and combining(mark := text[at - 1]) != _VIRAMA:
        if not _joins_left(mark, category(mark)):
            return False
        at -= 1
    return at > 0
