"""A coverage-guided fuzzer on one target, by name, with libFuzzer's options behind it.

    pip install atheris
    python -m tests.fuzz.run reader corpus/reader -max_total_time=900 -max_len=400

What it finds is written to a file `crash-…`, which as the argument in place of the corpus is run again. Atheris is no
dependency of the project: Hypothesis runs the same targets in the suite, blindly.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Runs until it finds something, or is told to stop."""
    atheris: Any = import_module("atheris")
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["rxrouter._wire", "rxrouter._source.decode"]):
        target = import_module("tests.fuzz.targets").TARGETS[name]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
