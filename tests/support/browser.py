"""A headless browser that leaves nothing for the tests after it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["open_browser"]


@contextmanager
def open_browser(chromium: str) -> Generator[Any]:
    """A browser of playwright's.

    Parameters
    ----------
    chromium : str
        Path of Chromium.
    """
    from playwright.sync_api import sync_playwright

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            try:
                yield browser
            finally:
                browser.close()
    finally:
        # Its event loop and its pipes are left to the collector, which would warn of them in
        # whatever test runs by then.
        playwright = browser = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
