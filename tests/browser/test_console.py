"""Console and portal as a person uses them, in Debian's Chromium against a box in the lab."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from appliance import config
from appliance.queue.keys import generate_keys
from scripts.labs.session import TEST_LOGS
from tests.browser.window import PHONE, chromium, tab, window
from tests.console import PASSWORD
from tests.lab.box import Box, started
from tests.lab.systems import Record, http_target, post

TARGET_PORT = 8080
INSTANCES = {
    "ardpx", "arvpn", "armail", "queue", "arclst", "arhav", "dns", "portal", "arwadm-1", "arsrv-1", "arsrv-2",
}  # fmt: skip


SETTINGS = config.Config(
    machine=config.Machine(name="box"), arsrv=config.Arsrv(egress_ports=(80, 443, TARGET_PORT))
)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box that is ready but on which nobody has set a password yet."""
    with started(SETTINGS, set_up=False) as box:
        yield box


@pytest.fixture(scope="module")
def person(box: Box) -> Iterator[BrowserContext]:
    """One person's browser window."""
    with chromium() as browser, window(browser, box.console.url) as person:
        yield person


@pytest.fixture
def page(person: BrowserContext) -> Iterator[Page]:
    """A tab of that person's."""
    with tab(person) as page:
        yield page


def test_a_new_box_leads_to_its_set_up_and_wants_the_pairing_code(box: Box, page: Page) -> None:
    page.goto("/")
    expect(page).to_have_url(re.compile("/setup$"))
    page.get_by_label("Pairing code").fill("WRNG-CODE")
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("Once more").fill(PASSWORD)
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_role("alert")).to_be_visible()

    page.get_by_label("Pairing code").fill(box.status()["pairing"]["code"])
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("Once more").fill(PASSWORD)
    page.get_by_role("button", name="Set password").click()
    expect(page).to_have_url(re.compile("/login$"))


def test_a_wrong_password_is_refused_and_the_right_one_opens_the_live_view(page: Page) -> None:
    page.goto("/login")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()

    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#health")).to_have_text("ready")
    expect(page.locator(".tile")).to_have_count(len(INSTANCES))
    shown = {tile.get_attribute("data-instance") for tile in page.locator(".tile").all()}
    assert shown == INSTANCES
    expect(page.locator("#order tbody tr")).to_have_count(2)


def test_a_flow_added_in_the_portal_delivers_and_the_console_counts_without_a_reload(
    box: Box, page: Page, tmp_path: Path
) -> None:
    page.goto("/portal/")
    page.get_by_label("Name").fill("orders")
    page.get_by_label("Deliver to").fill(f"http://{box.outside.address()}:{TARGET_PORT}/orders")
    page.get_by_role("button", name="Add a step").click()
    page.get_by_label("Field or expression").fill("source")
    page.get_by_label("Value (JSON)").fill('"shop"')
    page.get_by_role("button", name="Save flow").click()
    expect(page.locator("tr[data-flow=orders]")).to_contain_text("/hooks/orders")
    expect(page.get_by_role("status")).to_contain_text("saved")

    page.goto("/")
    expect(page.locator("#delivered")).to_have_text("0")
    record = Record(tmp_path / "target")
    box.wait_flow_runs("orders")
    with http_target(box.outside, record):
        for n in range(3):
            assert post(box.outside, box.hook("orders"), f'{{"n": {n}}}').status == 202
        record.wait_for(3)
        expect(page.locator("#delivered")).to_have_text("3")
    expect(page.locator("#flows tbody tr", has_text="orders")).to_contain_text("3")
    expect(page.locator("#recent tbody tr").first).to_contain_text("done")
    assert {line["body"] for line in record.lines()} == {f'{{"n":{n},"source":"shop"}}' for n in range(3)}


def test_a_dead_letter_shows_at_once(box: Box, page: Page) -> None:
    document = {
        "name": "doomed",
        "deliver": {
            "kind": "http",
            "url": f"http://{box.outside.address()}:{TARGET_PORT}/",
            "retry": {"attempts": 1, "first_s": 0.1},
        },
    }
    box.console.log_in()
    box.put_flow(document)
    page.goto("/")
    expect(page.locator("#dead")).to_have_text("0")
    assert post(box.outside, box.hook("doomed"), "{}").status == 202
    expect(page.locator("#dead")).to_have_text("1")
    page.screenshot(path=TEST_LOGS / "console.png", full_page=True)


def test_a_dead_letter_is_opened_and_requeued_and_leaves_the_page_by_itself(
    box: Box, page: Page, tmp_path: Path
) -> None:
    assert post(box.outside, box.hook("doomed"), '{"note": "<img src=x onerror=alert(1)>"}').status == 202
    page.goto("/letters")
    group = page.locator('article[data-address="flow.doomed.0"]')
    expect(group.locator("tr[data-seq]")).to_have_count(2)
    group.get_by_role("button", name="Show").last.click()
    expect(group.get_by_label("Body")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(group.locator("img")).to_have_count(0)
    page.screenshot(path=TEST_LOGS / "letters.png", full_page=True)

    record = Record(tmp_path / "target")
    with http_target(box.outside, record):
        page.once("dialog", lambda dialog: dialog.accept())
        group.get_by_role("button", name="Requeue all").click()
        expect(page.locator("#done")).to_have_text("2 dead letters requeued.")
        record.wait_for(2)
    expect(group).to_have_count(0)


def test_a_flow_that_is_wrong_is_refused_with_what_to_do(page: Page) -> None:
    page.goto("/portal/")
    page.get_by_label("Name").fill("broken")
    page.get_by_label("Deliver to").fill("http://192.0.2.1/")
    page.get_by_role("button", name="Add a step").click()
    page.get_by_label("Kind of step").select_option("filter")
    page.get_by_label("Field or expression").fill("((")
    page.get_by_role("button", name="Save flow").click()
    expect(page.get_by_role("alert")).to_contain_text("invalid-flow")
    expect(page.locator("tr[data-flow=broken]")).to_have_count(0)


def test_a_route_to_another_cluster_appears_by_itself_with_its_backlog_and_what_holds_it_up(
    box: Box, page: Page
) -> None:
    page.goto("/")
    expect(page.locator("#health")).to_have_text("ready")
    expect(page.get_by_text("Routes to other clusters")).to_be_hidden()

    other, load = generate_keys(), generate_keys()
    route = config.QueueRoute(to="far/east", endpoint=box.outside.address(), server_key=other.public)
    peer = config.QueuePeer(name="far/load", public_key=load.public, publish=("far/east/*",))
    settings = msgspec.structs.replace(SETTINGS, queue=config.Queue(routes=(route,), peers=(peer,)))
    document = msgspec.toml.encode(settings).decode()
    box.machine.run(["sh", "-c", "cat > /tmp/new && alpha-ren apply /tmp/new"], stdin=document, deadline_s=150.0)
    shown = page.locator("#routes tbody tr")
    expect(shown).to_contain_text("far/east")

    entrance, key = f"tcp://{box.address}:7156", box.status()["queue_key"]
    publish = [sys.executable, "-m", "tests.outside.queue_load", entrance, key, load.public, "far/east/in.%d", "3"]
    box.outside.run(publish, stdin=f"{load.secret}\n", deadline_s=60.0)
    expect(shown.locator("td").nth(3)).to_have_text("3")
    expect(shown).to_contain_text("away")
    expect(shown).to_contain_text("was not reached")
    expect(page.locator("#depths")).to_contain_text("far/east/in.0")
    page.screenshot(path=TEST_LOGS / "routes.png", full_page=True)


def test_on_a_phone_no_page_is_wider_than_the_screen(box: Box, page: Page) -> None:
    assert post(box.outside, box.hook("doomed"), "{}").status == 202
    page.set_viewport_size(PHONE)
    for path, filled in (("/", "#recent td"), ("/letters", ".group td"), ("/portal/", "#flows td b")):
        page.goto(path)
        expect(page.locator(filled).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_the_form_of_a_flow_can_be_filled_by_keyboard_alone(page: Page) -> None:
    page.goto("/portal/")
    page.get_by_role("button", name="Edit orders").press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_value("orders")
    page.get_by_role("button", name="Add a step").press("Enter")
    expect(page.get_by_label("Kind of step").last).to_be_focused()
    page.get_by_role("button", name="Remove this step").last.press("Enter")
    expect(page.get_by_role("button", name="Add a step")).to_be_focused()


def test_after_log_out_nothing_is_shown(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto("/portal/")
    expect(page).to_have_url(re.compile("/login$"))
