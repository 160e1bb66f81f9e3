"""Finish reasons: which of them prove that the model had finished, and which that it had not."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Without case and signs, in which servers differ: the words of OpenAI, Anthropic, Cohere and TGI.
_COMPLETING = {
    *("toolcalls", "toolcall", "functioncall", "functioncalls", "tooluse"),
    *("stop", "stopsequence", "endturn", "complete", "completed", "eos", "eostoken"),
}
# These words prove the opposite, whatever stands beside them: finish "tool_calls" with native "length" is a cut call.
_CUT = re.compile(
    r"length|max|limit|exceed|too_many|truncat|incomplete|cancel|abort|kill|interrupt|pause|evict|timeout"
    r"|error|fail|malformed|unexpected|overload|insufficient|resource|unavailable"
    r"|safety|filter|refus|recitation|block|prohibited|spii|sensitive|flagged|guardrail|moderat|^other$",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"[\W_]+")


def is_completing(reason: str | None) -> bool:
    """Return whether the reason proves that the model had finished."""
    return reason is not None and _SIGNS.sub("", reason).lower() in _COMPLETING


def cutting_reason(reasons: Iterable[str | None]) -> str | None:
    """Return the first reason that proves that the model had not finished; None where there is no such reason."""
    return next((reason for reason in reasons if reason and _CUT.search(reason)), None)
