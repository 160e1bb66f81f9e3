"""One generation, many readers: within a chain, by name within a process, by name across machines.

share_generation      one subscription for all who subscribe to this Observable
Hub(MemoryLog())      generations under keys, for the readers of this process
Hub(RedisLog(url))    the same for many processes and machines; `from rxrouter.sharing.redis import RedisLog`
Spread(log, log, …)   several logs as one: keys spread over servers, or over the slots of a cluster

A log of your own is a `Log`: it gives each key one `Writer`, and feeds a `Tape` where the key is read.
"""

from rxrouter.operators.share_generation import share_generation
from rxrouter.sharing.hub import Entry, Hub
from rxrouter.sharing.log import Log, Status, Writer
from rxrouter.sharing.memory import MemoryLog
from rxrouter.sharing.spread import Spread
from rxrouter.sharing.tape import Tape

__all__ = ["share_generation", "Hub", "Entry", "Status", "MemoryLog", "Spread", "Log", "Writer", "Tape"]
