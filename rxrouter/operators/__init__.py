"""Observable → Observable: what gives chunks their meaning, in groups.

select   text · reasoning · refusal · tool_call_deltas · tool_calls · citations · images · audio · usage
fold     completion · snapshots · partial_json · json_items
time     timeouts, with the presets INTERACTIVE · REASONING · BATCH
retry    retry_transient · continue_from_partial
route    fallback, with the Health of its sources · hedge, whose on_loss is told of each Loss
load     limit
display  coalesce · smooth · sentences
measure  meter, which makes Meters · budget, with what was Spent · guard · record_marbles
share    share_generation
"""

from rxrouter.operators._health import Health
from rxrouter.operators._types import Operator
from rxrouter.operators.audio import audio
from rxrouter.operators.budget import Spent, budget
from rxrouter.operators.citations import citations
from rxrouter.operators.coalesce import coalesce
from rxrouter.operators.completion import completion
from rxrouter.operators.continue_from_partial import continue_from_partial
from rxrouter.operators.fallback import fallback
from rxrouter.operators.guard import guard
from rxrouter.operators.hedge import Loss, hedge
from rxrouter.operators.images import images
from rxrouter.operators.json_items import json_items
from rxrouter.operators.limit import limit
from rxrouter.operators.meter import Meter, meter
from rxrouter.operators.partial_json import partial_json
from rxrouter.operators.reasoning import reasoning
from rxrouter.operators.record_marbles import record_marbles
from rxrouter.operators.refusal import refusal
from rxrouter.operators.retry_transient import retry_transient
from rxrouter.operators.sentences import sentences
from rxrouter.operators.share_generation import share_generation
from rxrouter.operators.smooth import smooth
from rxrouter.operators.snapshots import snapshots
from rxrouter.operators.text import text
from rxrouter.operators.timeouts import BATCH, INTERACTIVE, REASONING, timeouts
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
    "partial_json",
    "json_items",
    # time
    "timeouts",
    "INTERACTIVE",
    "REASONING",
    "BATCH",
    # retry
    "retry_transient",
    "continue_from_partial",
    # route
    "fallback",
    "Health",
    "hedge",
    "Loss",
    # load
    "limit",
    # display
    "coalesce",
    "smooth",
    "sentences",
    # measure
    "meter",
    "Meter",
    "budget",
    "Spent",
    "guard",
    "record_marbles",
    # share
    "share_generation",
    # and their type
    "Operator",
]
