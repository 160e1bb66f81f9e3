"""Try again after what may pass, and only that; not after words were shown.

Prints:
    HTTP 429: Rate limit exceeded; again in 0.1 s
    2 requests: Once upon a time …
    HTTP 401: Missing Authentication header; no use in trying again
"""

import reactivex as rx
from reactivex import Observable, operators as ops

from rxrouter import ChatCompletion, OpenRouter, StatusError, is_transient
from rxrouter.operators import completion
from rxrouter.testing import Exchange, Reply, Simulator, answer

BUSY = Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "0.1"})


def once_more(error: Exception, source: Observable[ChatCompletion]) -> Observable[ChatCompletion]:
    """The same stream again, when the server says, if there is hope; `completion()` has shown nothing so far."""
    if not is_transient(error):
        print(f"{error}; no use in trying again")
        return rx.throw(error)
    pause = error.retry_after if isinstance(error, StatusError) and error.retry_after else 1.0
    print(f"{error}; again in {pause:g} s")
    return source.pipe(ops.delay_subscription(pause))


def first_busy(exchange: Exchange) -> Reply:
    """A server that has no time at first."""
    return BUSY if exchange is offline.exchanges[0] else Reply.of(answer())


with Simulator(first_busy) as offline, OpenRouter(base_url=offline.base_url) as client:
    whole = client.chat("Tell me a story about AI").pipe(completion(), ops.catch(once_more)).run()
    print(f"{len(offline.exchanges)} requests: {whole.text[:16]} …")
with Simulator(fault="401") as offline, OpenRouter(base_url=offline.base_url) as client:
    client.chat("Hi").pipe(completion(), ops.catch(once_more), ops.on_error_resume_next(rx.of(None))).run()
