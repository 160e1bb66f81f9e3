"""Show tool calls while they come; run them only with proof that the model said all of it.

Prints:
    weather {"city": "Oslo"}
    running weather for Oslo
    refused: the answer ended by 'length'
"""

import json

from rxrouter import IncompleteToolCallError, OpenRouter, ToolCallDelta
from rxrouter.operators import share_generation, tool_call_deltas, tool_calls
from rxrouter.testing import DONE, Reply, Simulator, answer, chunk

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
WHOLE = answer("", tool_calls=[("weather", '{"city": "Oslo"}')])
BEGUN = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city": "Os'}}
CUT = [chunk({"tool_calls": [BEGUN]}), chunk(finish="tool_calls", native="length"), DONE]


def show(piece: ToolCallDelta) -> None:
    """A call in the making is for the eye only."""
    name = f"{piece.function.name} " if piece.function.name else ""
    print(name + (piece.function.arguments or ""), end="")


with Simulator(Reply.of(WHOLE)) as offline, OpenRouter(base_url=offline.base_url) as client:
    chunks = client.chat("What is the weather in Oslo?", tools=[WEATHER]).pipe(share_generation())
    chunks.pipe(tool_call_deltas()).subscribe(show, on_completed=print)
    call = chunks.pipe(tool_calls()).run()
    print(f"running {call.name} for {json.loads(call.arguments)['city']}")

with Simulator(Reply.of(CUT)) as offline, OpenRouter(base_url=offline.base_url) as client:
    try:
        client.chat("What is the weather in Oslo?", tools=[WEATHER]).pipe(tool_calls()).run()
    except IncompleteToolCallError as error:
        print("refused:", error.reason)
