from __future__ import annotations

import pytest

from tests.conftest import TEST_SECONDS, time_limit


@pytest.mark.parametrize(
    ("marks", "seconds"), [((), TEST_SECONDS), (("perf",), None), (("perf", "long"), None)], ids=str
)
def test_a_time_limit_is_for_tests_and_not_for_benchmarks(
    marks: tuple[str, ...], seconds: float | None, request: pytest.FixtureRequest
) -> None:
    for mark in marks:
        request.node.add_marker(mark)

    assert time_limit(request.node) == seconds
