"""Windows and tabs of Debian's Chromium; the driver comes with the Playwright wheel and downloads nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000
"""For every action and every expectation; the driver's own for the latter is too short for a busy machine."""
DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 800}
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, for as long as the context lasts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """One person's window, cookies and all."""
    context = browser.new_context(base_url=url, ignore_https_errors=True, viewport=DESK)
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@contextmanager
def tab(person: BrowserContext) -> Iterator[Page]:
    """A tab in which any script error or refused resource fails the test."""
    page = person.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    page.close()
    assert [line for line in complaints if "status of 4" not in line] == [], "the page complained"
