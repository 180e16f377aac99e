"""A real browser: Chromium without a window, as the system has it."""

import os
import re
import shutil
from contextlib import contextmanager

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
REFUSED = re.compile("Failed to load resource: the server responded with a status of 4")  # as an action may be
WAIT_MS = 60_000  # deadline of waits that take a second
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    """Return the program of the browser; without one, skip the test, but fail it in CI."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None) or _lacking("chromium")


def _lacking(what):
    if os.environ.get("CI"):
        pytest.fail(f"no {what}, and CI must have it")
    pytest.skip(f"no {what} on this machine")


@contextmanager
def browser():
    """Run a browser that playwright drives."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _lacking("playwright")
    program = chromium()
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running, url, *, width=1280, height=900, **context):
    """Open a page and yield it; fail for a line on its console, a defect of its scripts, or a request elsewhere."""
    session = running.new_context(viewport={"width": width, "height": height}, **context)
    page, said, asked = session.new_page(), [], []
    page.on("console", lambda line: REFUSED.match(line.text) or said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(url)
        yield page
        assert said == []
        own = "/".join(url.split("/")[:3])
        assert [other for other in asked if not other.startswith((own, "data:"))] == []
    finally:
        session.close()


def shown(page, name, text):
    """Wait until the element of an id has a text, which is a regular expression."""
    from playwright.sync_api import Error

    element = page.locator(f"#{name}")
    try:
        element.filter(has_text=re.compile(text)).wait_for(timeout=WAIT_MS)
    except Error:
        pytest.fail(f"#{name} shows {element.inner_text()!r}, and not {text!r}")
