"""A real browser for the tests of pages: headless Chromium, with what it said and asked for.

Where ``GRAMIAN_TEST_ALL`` is set, as it is in CI, a browser that is missing is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Heard:
    """Messages on the console and errors of the page; the addresses that were asked for."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def opened(address: str, width: int = 1280, height: int = 900, **context: Any) -> Iterator[tuple[Any, Heard]]:
    """A page of this width, and what was heard of it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        if os.environ.get("GRAMIAN_TEST_ALL"):
            pytest.fail("There is no Chromium or no Playwright, but GRAMIAN_TEST_ALL is set.")
        pytest.skip("There is no Chromium or no Playwright.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        heard = Heard()
        page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
        page.on("console", lambda message: heard.said.append(message.text))
        page.on("pageerror", lambda error: heard.said.append(str(error)))
        page.on("request", lambda request: heard.asked.append(request.url))
        page.goto(address)
        try:
            yield page, heard
        finally:
            browser.close()
