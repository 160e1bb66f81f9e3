"""For tests, ours and yours: recorded and made-up answers, a server that gives them with every fault, and marbles."""

from rxrouter.testing.answer import COMMENT, DONE, STORY, answer, chunk, event
from rxrouter.testing.gallery import Gallery
from rxrouter.testing.marbles import MarbleSpec
from rxrouter.testing.played import Heard, Played, Told
from rxrouter.testing.recording import Recording
from rxrouter.testing.reply import FAULTS, Act, Reply, Step
from rxrouter.testing.simulator import Exchange, Simulator
from rxrouter.testing.virtual import VirtualLoop

__all__ = [
    "Simulator",
    "Exchange",
    "Reply",
    "Step",
    "Act",
    "FAULTS",
    "VirtualLoop",
    "Recording",
    "MarbleSpec",
    "Played",
    "Heard",
    "Told",
    "Gallery",
    "answer",
    "chunk",
    "event",
    "COMMENT",
    "DONE",
    "STORY",
]
