"""The console's page of dead letters and its figures, over HTTP, with a real broker that knows the console's rights."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

import appliance.arwadm
from appliance.arclst.users import BadCredentials, NoSession
from appliance.arwadm.picture import watching
from appliance.arwadm.service import ROUTES
from appliance.arwadm.spec import RIGHTS
from appliance.contracts.bridge import RoutesStatus, RouteStatus
from appliance.contracts.letters import Changed
from appliance.contracts.service import ServiceContext
from appliance.contracts.user import Login, Session, SessionToken
from appliance.queue.client import QueueClient, Request
from appliance.web.server import Console, application
from appliance.web.session import COOKIE
from tests.unit.queue.bridges import ANYTHING
from tests.unit.queue.running import Broker, running

FOLDER = Path(appliance.arwadm.__file__).parent
TOKEN = "a-session"
SOON_S = 30.0


class Users:
    """Stands for ARCLST on the queue: knows one user and one session."""

    def __init__(self) -> None:
        self.logins = 0

    async def serve(self, queue: QueueClient) -> None:
        await queue.serve("arclst.session", self._session)
        await queue.serve("arclst.login", self._login)

    async def _session(self, request: Request) -> Session:
        if request.decode(SessionToken).token != TOKEN:
            raise NoSession("There is no such session.")
        return Session(user="admin", expires_at=2e9)

    async def _login(self, request: Request) -> SessionToken:
        self.logins += 1
        login = request.decode(Login)
        if (login.user, login.password) != ("admin", "pass:word"):
            raise BadCredentials("Name or password is wrong.")
        return SessionToken(token=TOKEN)


class Site:
    """The console at `url`, and a client of the queue that may do everything."""

    def __init__(self, url: str, queue: QueueClient, users: Users) -> None:
        self.url = url
        self.queue = queue
        self.users = users
        self._xsrf = ""

    async def fetch(
        self, path: str, *, body: object = None, logged_in: bool = True, xsrf: bool = True, **headers: str
    ) -> HTTPResponse:
        """Return the answer to a GET, or with a body to a POST, whatever its status."""
        cookies = [f"{COOKIE}={TOKEN}"] if logged_in else []
        if self._xsrf and xsrf:
            cookies.append(f"__Host-xsrf={self._xsrf}")
            headers["X-Xsrftoken"] = self._xsrf
        answer = await AsyncHTTPClient().fetch(
            self.url + path,
            method="GET" if body is None else "POST",
            body=None if body is None else msgspec.json.encode(body),
            headers={"Cookie": "; ".join(cookies), **headers},
            follow_redirects=False,
            raise_error=False,
        )
        for cookie in answer.headers.get_list("Set-Cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if name == "__Host-xsrf":
                self._xsrf = value
        return answer

    async def json(self, path: str, body: object = None) -> Any:
        """Return the decoded answer of a call that is fulfilled."""
        answer = await self.fetch(path, body=body)
        assert answer.code == 200, answer.body
        return msgspec.json.decode(answer.body)

    async def await_picture(self, wanted: Callable[[Any], bool]) -> Any:
        """Follow the live view and return the first picture that is as wanted."""
        headers = {"Cookie": f"{COOKIE}={TOKEN}"}
        async with (
            asyncio.timeout(SOON_S),
            aiohttp.ClientSession() as browser,
            browser.get(self.url + "/live", headers=headers) as live,
        ):
            async for line in live.content:
                if line.startswith(b"data: ") and wanted(picture := msgspec.json.decode(line[6:])):
                    return picture
        raise AssertionError("the live view ended")

    async def kill(self, address: str, *ids: str, body: bytes = b'{"total":3}') -> None:
        """Publish messages that their consumer refuses."""
        for each in ids:
            await self.queue.publish(address, body, id=each)
        deliveries = self.queue.consume(address)
        for _ in ids:
            await (await anext(deliveries)).reject("<b>no</b>")
        await deliveries.aclose()


@asynccontextmanager
async def site(broker: Broker) -> AsyncIterator[Site]:
    context = ServiceContext(
        instance="arwadm-1", component="arwadm", machine="box", lan="lan", cluster="main", queue_endpoint="",
        public_key="", legs={},
    )  # fmt: skip
    console = Console(folder=FOLDER, prefix="/", routes=ROUTES, companion=watching)
    async with broker.client() as tester, broker.client("arwadm-1") as queue, watching(queue) as watcher:
        users = Users()
        await users.serve(tester)
        server = HTTPServer(application(console, context, queue, watcher))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        yield Site(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", tester, users)
        server.stop()
        await server.close_all_connections()


def browsing(work: Callable[[Site], Awaitable[None]], *, routes: tuple[str, ...] = (), **settings: object) -> str:
    """Run `work` on a console with a broker of its own; return what the broker logged."""

    async def main(broker: Broker) -> None:
        async with site(broker) as place:
            await work(place)

    with running(**settings) as broker:
        broker.routes = routes
        broker.grant("tester", ANYTHING)
        broker.grant("arwadm-1", RIGHTS)
        asyncio.run(main(broker))
        return broker.log()


def test_dead_letters_are_listed_and_opened() -> None:
    async def work(place: Site) -> None:
        await place.kill("flow.orders.0", "1", "2")
        await place.kill("mail", "3", body=msgspec.msgpack.encode({"to": b"ops"}))
        everything = (await place.json("/api/letters"))["messages"]
        assert [(m["address"], m["id"]) for m in everything] == [
            ("flow.orders.0", "1"), ("flow.orders.0", "2"), ("mail", "3"),
        ]  # fmt: skip
        (mail,) = (await place.json("/api/letters?address=mail"))["messages"]
        opened = await place.json(f"/api/letters/{mail['seq']}")
        assert (opened["kind"], opened["text"]) == ("msgpack", '{\n  "to": "ops"\n}')
        assert [line["reason"] for line in opened["history"]] == ["<b>no</b>"]
        gone = await place.fetch("/api/letters/999")
        assert (gone.code, msgspec.json.decode(gone.body)["code"]) == (404, "not-found")

    browsing(work)


def test_dead_letters_are_requeued_and_purged_in_the_name_of_who_is_logged_in() -> None:
    async def work(place: Site) -> None:
        await place.fetch("/letters")
        await place.kill("a", "1", "2", "3")
        first, *_ = (await place.json("/api/letters"))["messages"]
        done = await place.json("/api/letters/requeue", {"seqs": [first["seq"]]})
        assert msgspec.convert(done, Changed) == Changed(count=1, last=first["seq"])
        delivery = await anext(place.queue.consume("a"))
        assert (delivery.id, delivery.attempt) == ("1", 1)
        await delivery.done()
        assert (await place.json("/api/letters/purge", {"address": "a", "who": "somebody else"}))["count"] == 2
        assert (await place.json("/api/letters"))["messages"] == []
        refused = await place.fetch("/api/letters/purge", body={"address": "a", "colour": "red"})
        assert (refused.code, msgspec.json.decode(refused.body)["code"]) == (400, "invalid-input")

    log = browsing(work)
    assert "admin at arwadm-1 requeued 1 message(s) (1 by number)" in log
    assert "admin at arwadm-1 purged 2 message(s) (a)" in log


def test_without_a_session_or_the_forms_own_token_nothing_is_shown_or_changed() -> None:
    async def work(place: Site) -> None:
        await place.fetch("/letters")
        await place.kill("a", "1")
        for path in ("/api/letters", "/api/letters/1", "/metrics"):
            assert (await place.fetch(path, logged_in=False)).code == 401
        page = await place.fetch("/letters", logged_in=False, Accept="text/html")
        assert (page.code, page.headers["Location"]) == (302, "/login")
        assert (await place.fetch("/api/letters/purge", body={"address": "a"}, logged_in=False)).code == 401
        assert (await place.fetch("/api/letters/purge", body={"address": "a"}, xsrf=False)).code == 403
        assert len((await place.json("/api/letters"))["messages"]) == 1

    browsing(work)


def test_a_route_is_in_the_live_view_and_among_the_figures_with_what_its_bridge_says() -> None:
    route = RouteStatus(to="far/east", endpoint="tcp://192.0.2.7:7156", connected=True, lag_s=3.5, problem="No room.")

    async def status(_request: Request) -> RoutesStatus:
        return RoutesStatus(place="lan/main", public_key="", routes=(route,))

    async def work(place: Site) -> None:
        await place.queue.publish("far/east/orders", b"12345")
        silent = await place.await_picture(lambda picture: picture["routes"] and picture["routes"][0]["waiting"])
        assert silent["routes"] == [{"to": "far/east", "waiting": 1, "dead": 0, "bytes": 5, "route": None}]
        scraped = await place.fetch("/metrics")
        assert b'\nalpha_ren_queue_route_connected{to="far/east"} 0\n' in scraped.body

        await place.queue.serve("bridge.routes", status)
        told = await place.await_picture(lambda picture: picture["routes"][0]["route"])
        assert msgspec.convert(told["routes"][0]["route"], RouteStatus) == route
        scraped = await place.fetch("/metrics")
        assert b'\nalpha_ren_queue_route_connected{to="far/east"} 1\n' in scraped.body
        assert b'\nalpha_ren_queue_route_lag_seconds{to="far/east"} 3.5\n' in scraped.body

    browsing(work, routes=("far/east",))


def test_without_a_route_neither_the_live_view_nor_the_figures_speak_of_one() -> None:
    async def work(place: Site) -> None:
        await place.kill("a", "1")
        assert (await place.await_picture(lambda picture: picture["depths"]))["routes"] == []
        assert b"route" not in (await place.fetch("/metrics")).body

    browsing(work)


def test_a_queue_that_takes_nothing_says_so_in_the_live_view() -> None:
    async def work(place: Site) -> None:
        assert not (await place.await_picture(lambda picture: "queue" not in picture["stale"]))["busy"]
        await place.queue.publish("a", b"x" * 100)
        await place.await_picture(lambda picture: picture["busy"])

    browsing(work, max_bytes=100)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_the_figures_are_scraped_with_name_and_password_and_one_login() -> None:
    async def work(place: Site) -> None:
        await place.kill("flow.orders.0", "1")
        for _ in range(3):
            scraped = await place.fetch("/metrics", logged_in=False, Authorization=basic("admin", "pass:word"))
            assert scraped.code == 200
            assert scraped.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert b'\nalpha_ren_queue_messages{address="flow.orders.0",state="dead"} 1\n' in scraped.body
        assert place.users.logins == 1
        assert (await place.fetch("/metrics")).code == 200, "a session will do as well"

    browsing(work)


@pytest.mark.parametrize("header", [basic("admin", "wrong"), "Basic ~~~", "Basic bm9jb2xvbg==", "Bearer x", ""])
def test_a_scrape_without_the_right_password_is_told_how_to_log_in(header: str) -> None:
    async def work(place: Site) -> None:
        refused = await place.fetch("/metrics", logged_in=False, Authorization=header)
        assert refused.code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")
        assert set(msgspec.json.decode(refused.body)) >= {"code", "message", "hint"}

    browsing(work)
