"""Observable → Observable: what gives chunks their meaning, in groups.

select   text · reasoning · refusal · tool_call_deltas · tool_calls · citations · images · audio · usage
fold     completion · snapshots
"""

from rxrouter.operators._types import Operator
from rxrouter.operators.audio import audio
from rxrouter.operators.citations import citations
from rxrouter.operators.completion import completion
from rxrouter.operators.images import images
from rxrouter.operators.reasoning import reasoning
from rxrouter.operators.refusal import refusal
from rxrouter.operators.snapshots import snapshots
from rxrouter.operators.text import text
from rxrouter.operators.tool_call_deltas import tool_call_deltas
from rxrouter.operators.tool_calls import tool_calls
from rxrouter.operators.usage import usage

__all__ = [
    # select
    "text",
    "reasoning",
    "refusal",
    "tool_call_deltas",
    "tool_calls",
    "citations",
    "images",
    "audio",
    "usage",
    # fold
    "completion",
    "snapshots",
    # and their type
    "Operator",
]
