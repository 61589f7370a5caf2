"""HTTP delivery against real servers."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.arsrv.delivery import DeliveryFailed, HttpSender, retry_after_s
from appliance.arsrv.envelope import Envelope
from appliance.arsrv.targets import NOBODYS, ForbiddenTarget, Guard
from appliance.contracts.flow import Flow, HttpDelivery

MESSAGE = Envelope(id="m1", content_type="text/csv", received_at=0.0, body=b"a;b\n")
OPEN = Guard(())
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def flow(url: object, *, name: str = "orders", timeout_s: float = 10.0) -> Flow:
    return Flow(name=name, deliver=HttpDelivery(url=str(url), timeout_s=timeout_s))


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS context with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(certificate.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def deliver(answer: Answer, *, guard: Guard = OPEN, name: str = "orders", timeout_s: float = 10.0) -> None:
    """Deliver MESSAGE to a server that answers like this."""

    async def scenario() -> None:
        app = web.Application()
        app.router.add_route("*", "/in", answer)
        async with TestServer(app) as server, HttpSender(guard) as sender:
            await sender.send(flow(server.make_url("/in"), name=name, timeout_s=timeout_s), MESSAGE)

    asyncio.run(scenario())


def test_the_message_arrives_as_it_came_under_its_own_id() -> None:
    seen: list[tuple[str, str, str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.method, headers["Content-Type"], headers["Idempotency-Key"], await request.read()))
        return web.Response(status=204)

    deliver(take)
    assert seen == [("POST", "text/csv", "m1", b"a;b\n")]


@pytest.mark.parametrize("status", [301, 400, 404, 409, 429, 500, 503])
def test_anything_but_2xx_is_a_failure_that_is_tried_again(status: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "7", "Location": "/elsewhere"})

    with pytest.raises(DeliveryFailed) as failure:
        deliver(answer)
    assert str(status) in failure.value.message
    assert failure.value.retry_after_s == 7


def test_a_target_that_does_not_answer_is_left_at_the_deadline() -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(DeliveryFailed, match=r"did not answer within 0\.05 s"):
        deliver(hang, timeout_s=0.05)


def test_a_target_that_breaks_off_is_a_failure() -> None:
    async def break_off(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.abort()
        return web.Response()

    with pytest.raises(DeliveryFailed, match="broke off"):
        deliver(break_off)


def test_a_target_that_is_not_there_is_a_failure() -> None:
    async def scenario() -> None:
        async with HttpSender(OPEN) as sender:
            await sender.send(flow(f"http://127.0.0.1:{unused_port()}/"), MESSAGE)

    with pytest.raises(DeliveryFailed, match="cannot be reached"):
        asyncio.run(scenario())


def test_a_target_whose_certificate_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(
            lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=self_signed(tmp_path)
        )
        async with server, HttpSender(OPEN) as sender:
            await sender.send(flow(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"), MESSAGE)

    with pytest.raises(DeliveryFailed, match="certificate"):
        asyncio.run(scenario())


async def _never(_request: web.Request) -> web.Response:
    raise AssertionError("the message came through")


def test_a_users_flow_does_not_get_into_the_box() -> None:
    with pytest.raises(ForbiddenTarget, match=r"127\.0\.0\.1"):
        deliver(_never, guard=Guard(NOBODYS))


def test_a_name_that_resolves_into_the_box_does_not_get_there_either() -> None:
    async def scenario() -> None:
        app = web.Application()
        app.router.add_route("*", "/in", _never)
        async with TestServer(app) as server, HttpSender(Guard(NOBODYS)) as sender:
            await sender.send(flow(f"http://localhost:{server.port}/in"), MESSAGE)

    with pytest.raises(ForbiddenTarget, match="inside the box"):
        asyncio.run(scenario())


def test_the_appliances_own_flows_deliver_inside() -> None:
    seen = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    deliver(take, guard=Guard(NOBODYS), name="_selftest")
    assert seen == ["/in"]


def test_a_dead_target_is_left_alone_for_a_while_and_does_not_hold_up_another() -> None:
    async def scenario() -> tuple[int, bool]:
        hits, alive = 0, False

        async def count(_request: web.Request) -> web.Response:
            nonlocal hits
            hits += 1
            return web.Response(status=500)

        async def take(_request: web.Request) -> web.Response:
            nonlocal alive
            alive = True
            return web.Response()

        dead, well = web.Application(), web.Application()
        dead.router.add_route("*", "/", count)
        well.router.add_route("*", "/", take)
        async with TestServer(dead) as one, TestServer(well) as two, HttpSender(OPEN) as sender:
            tries = [asyncio.create_task(sender.send(flow(one.make_url("/")), MESSAGE)) for _ in range(5)]
            assert all(
                isinstance(outcome, DeliveryFailed) for outcome in await asyncio.gather(*tries, return_exceptions=True)
            )
            held = asyncio.create_task(sender.send(flow(one.make_url("/")), MESSAGE))
            await sender.send(flow(two.make_url("/")), MESSAGE)
            waiting = not held.done()
            held.cancel()
            assert waiting
            return hits, alive

    assert asyncio.run(scenario()) == (5, True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("12", 12),
        ("-3", 0),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, seconds: float) -> None:
    assert retry_after_s(header, now=60.0) == seconds
