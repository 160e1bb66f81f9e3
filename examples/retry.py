"""Try again what may pass, and only that; an answer that was cut in the middle begins anew, and says so.

Prints:
    2 requests: Once upon a time …
    HTTP 401: Missing Authentication header; 1 request
    Once upon a time ⟲ Once upon a …
"""

from reactivex import operators as ops

from rxrouter import ChatChunk, OpenRouter, Restarted, RetryPolicy, StatusError
from rxrouter.operators import completion, retry_transient
from rxrouter.testing import Act, Exchange, Reply, Simulator, answer

BUSY = Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "0.1"})
CUT = Reply([*answer()[:6], Act.CUT])
shown: list[str] = []


def failing_first(failure: Reply) -> Simulator:
    """A server that answers its first request like this, and then as it should."""
    return Simulator(lambda exchange: failure if is_first(exchange) else Reply.of(answer()))


def is_first(exchange: Exchange) -> bool:
    """Whether nobody has asked before."""
    return exchange is offline.exchanges[0]


def show(chunk: ChatChunk) -> None:
    """What a screen does: where the answer begins anew, it takes back what it has shown."""
    shown.append(" ⟲ " if isinstance(chunk, Restarted) else "".join(c.delta.content or "" for c in chunk.choices))


with failing_first(BUSY) as offline, OpenRouter(base_url=offline.base_url) as client:
    whole = client.chat("Tell me a story about AI").pipe(retry_transient(), completion()).run()
    print(f"{len(offline.exchanges)} requests: {whole.text[:16]} …")
with Simulator(fault="401") as offline, OpenRouter(base_url=offline.base_url) as client:
    try:
        client.chat("Hi").pipe(retry_transient(), completion()).run()
    except StatusError as error:
        print(f"{error}; {len(offline.exchanges)} request")
with failing_first(CUT) as offline, OpenRouter(base_url=offline.base_url) as client:
    begin_anew = retry_transient(RetryPolicy(first_delay=0.1, after_content="restart"))
    client.chat("Tell me a story about AI").pipe(begin_anew, ops.do_action(show), completion()).run()
    print("".join(shown)[:30], "…")
