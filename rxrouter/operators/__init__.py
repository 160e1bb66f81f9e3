"""Observable → Observable: what gives chunks their meaning, in groups.

select   text · reasoning · usage
fold     completion
"""

from rxrouter.operators._types import Operator
from rxrouter.operators.completion import completion
from rxrouter.operators.reasoning import reasoning
from rxrouter.operators.text import text
from rxrouter.operators.usage import usage

__all__ = ["text", "reasoning", "usage", "completion", "Operator"]
