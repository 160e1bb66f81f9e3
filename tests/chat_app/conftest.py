"""A browser for all tests; without one they are skipped, but not where every test is to run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chat_app.browser import Browser, find_browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("no chromium is installed, and CHROMIUM names none")
    with Browser(path, tmp_path_factory.mktemp("browser")) as running:
        yield running
