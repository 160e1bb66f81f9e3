"""The targets of the fuzzer, on bytes that nothing guides; and what it found."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.fuzz.targets import TARGETS

inputs = st.lists(st.integers(128, 255), min_size=10, max_size=40).map(bytes) | st.binary(max_size=60)


@pytest.mark.parametrize("target", TARGETS)
@given(data=inputs)
def test_target_keeps_its_promise(target: str, data: bytes) -> None:
    TARGETS[target](data)
