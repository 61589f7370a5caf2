"""A change on trial as the person at the console sees it, in Debian's Chromium against a box in the lab."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from appliance import config
from scripts.labs import topology
from scripts.labs.place import entry, entry_environment
from scripts.labs.publish import LOOPBACK, listen
from scripts.labs.session import TEST_LOGS
from tests.browser.window import DESK, PATIENCE_MS, PHONE, chromium, window
from tests.console import PASSWORD
from tests.lab.box import Box, started
from tests.lab.systems import wait_until

PLAN = topology.default()
GATEWAY = topology.gateway(PLAN, "uplink")
HERE = topology.address(PLAN, "box", "uplink")
THERE = str(topology.network4(PLAN, "uplink")[150])
NOWHERE = "203.0.113.10"
"""An address that nobody on the LAN would look for the box at."""

MACHINE = config.Machine(name="box")
PAGES = ("/", "/letters", "/portal/")
ENDS_MS = 90_000
"""By then a change of some seconds is undone, and a page that had lost the box has found it again."""

CARRY = """
import asyncio, socket, sys
from scripts.labs.publish import serve
asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], 443))
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box on DHCP that is ready and set up."""
    with started(config.Config(machine=MACHINE)) as box:
        yield box


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def person(box: Box, browser: Browser) -> Iterator[BrowserContext]:
    """Somebody who is logged in to the console."""
    with window(browser, box.console.url) as person:
        log_in(person)
        yield person


def log_in(person: BrowserContext) -> None:
    page = person.new_page()
    page.goto("/login")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#health")).to_have_text("ready")
    page.close()


@contextmanager
def console_at(box: Box, address: str) -> Iterator[str]:
    """The URL at which a browser reaches the console of the box at this address, by way of the outside host."""
    with listen(443) as listening:
        argv = [sys.executable, "-c", CARRY, str(listening.fileno()), address]
        with entry(box.lab.name, "outside", argv, "own") as (command, pidfd):
            inherited = (pidfd, listening.fileno())
            carrier = subprocess.Popen(command, env=entry_environment(), pass_fds=inherited)
        try:
            yield f"https://{LOOPBACK}:{listening.getsockname()[1]}"
        finally:
            carrier.terminate()
            carrier.wait(10)


def static(address: str, gateway: str = GATEWAY) -> config.Config:
    """A configuration with that uplink."""
    uplink = config.Uplink(mode="static", address=f"{address}/24", gateway=gateway)
    return config.Config(machine=MACHINE, network=config.Network(uplink=uplink))


def apply(box: Box, settings: config.Config, within_s: int) -> None:
    """Apply a configuration as an operator does."""
    command = f"cat > /tmp/new.toml && alpha-ren apply --confirm-within {within_s} /tmp/new.toml"
    document = msgspec.toml.encode(settings).decode()
    box.machine.run(["sh", "-c", command], stdin=document, deadline_s=60)


def banner(page: Page) -> Locator:
    """The banner of a page."""
    return page.get_by_label("Change on trial")


def seconds_left(page: Page) -> int:
    """What the banner counts down."""
    minutes, seconds = page.get_by_role("timer").locator("b").inner_text().split(":")
    return 60 * int(minutes) + int(seconds)


def opened(person: BrowserContext, url: str = "") -> list[Page]:
    """Every page of the console, each in a tab that hears the box."""
    pages = [person.new_page() for _ in PAGES]
    for page, path in zip(pages, PAGES, strict=True):
        with page.expect_response("**/live"):
            page.goto(url + path)
    return pages


def test_one_that_is_undone_on_one_page_says_so_on_all_that_showed_it(box: Box, person: BrowserContext) -> None:
    pages = opened(person)
    apply(box, static(HERE), 300)
    for page in pages:
        expect(banner(page)).to_contain_text("nic ardpx/uplink changes (addresses, leased)", timeout=PATIENCE_MS)
    pages[-1].get_by_role("button", name="Undo").click()
    for page in pages:
        expect(banner(page)).to_contain_text("was undone, because admin said so", timeout=PATIENCE_MS)
        expect(banner(page).get_by_role("button")).to_have_text(["Close"])
    pages[0].screenshot(path=TEST_LOGS / "trial-undone.png")
    pages[0].get_by_role("button", name="Close").click()
    expect(banner(pages[0])).to_be_hidden()
    assert box.status()["pending"] is None
    wait_until("the uplink is on DHCP again", lambda: plan(box) == [], 60)


def test_a_refusal_is_shown_with_its_code_and_what_to_do(box: Box, person: BrowserContext) -> None:
    page = person.new_page()
    page.goto("/letters")
    apply(box, static(HERE), 300)
    # As if another change had come between what the page shows and what the person does.
    person.route("**/api/trial/keep", lambda route: route.continue_(post_data=json.dumps({"digest": "0" * 64})))
    page.get_by_role("button", name="Keep").click()
    expect(banner(page)).to_contain_text("other-change")
    expect(banner(page)).to_contain_text("Another change is on trial than the one that was meant.")
    expect(page.get_by_role("button", name="Keep")).to_be_enabled()
    page.screenshot(path=TEST_LOGS / "trial-refused.png")
    box.machine.run(["alpha-ren", "revert"], deadline_s=60)
    expect(banner(page)).to_contain_text("was undone, because", timeout=PATIENCE_MS)


def test_when_nobody_keeps_it_the_pages_that_lost_the_box_find_it_again_and_say_that_it_was_undone(
    box: Box, person: BrowserContext
) -> None:
    pages = opened(person)
    apply(box, static(NOWHERE, "203.0.113.1"), 30)
    for page in pages:
        expect(banner(page)).to_contain_text("A change of the configuration is on trial.")
        expect(page.locator("#trial-lost")).to_be_visible(timeout=PATIENCE_MS)
    for page in pages:
        expect(banner(page)).to_contain_text("was undone, because it was not confirmed in time", timeout=ENDS_MS)
    page = person.new_page()
    page.goto("/letters")
    expect(banner(page)).to_contain_text("was undone, because it was not confirmed in time")
    page.get_by_role("button", name="Close").click()
    page.goto("/")
    expect(page.locator("#health")).to_have_text("ready", timeout=ENDS_MS)
    expect(banner(page)).to_be_hidden()
    wait_until("the uplink is on DHCP again", lambda: plan(box) == [], 60)


def test_one_that_is_kept_over_the_new_path_is_in_force_after_its_time(box: Box, person: BrowserContext) -> None:
    within_s = 60
    apply(box, static(THERE), within_s)
    over = time.monotonic() + within_s
    with console_at(box, THERE) as url:
        pages = opened(person, url)
        for page in pages:
            expect(banner(page)).to_contain_text("on trial", timeout=PATIENCE_MS)
        first = pages[0]
        left = seconds_left(first)
        assert 0 < left <= within_s
        wait_until("the time runs", lambda: seconds_left(first) < left, 10)
        first.screenshot(path=TEST_LOGS / "trial.png")
        first.set_viewport_size(PHONE)
        first.screenshot(path=TEST_LOGS / "trial-phone.png")
        assert first.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        first.set_viewport_size(DESK)

        first.get_by_role("button", name="Keep").click()
        for page in pages:
            expect(banner(page)).to_be_hidden(timeout=PATIENCE_MS)
        wait_until("its time is over", lambda: time.monotonic() > over + 2, within_s + 10)
        assert box.status()["pending"] is None
        assert f"{THERE}/24" in box.status()["uplink"]
        first.reload()
        expect(first.locator("#health")).to_have_text("ready")
        expect(banner(first)).to_be_hidden()


def plan(box: Box) -> object:
    """What the supervisor would do now."""
    return json.loads(box.machine.run(["alpha-ren", "plan", "--json"]).stdout)["steps"]
