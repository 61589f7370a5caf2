"""The server around a console: from the service document to the cancellation that SIGTERM brings."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from tornado.httpserver import HTTPServer
from tornado.log import access_log
from tornado.web import Application, RequestHandler

from appliance import notify
from appliance.contracts.service import ServiceContext, load
from appliance.queue.client import QueueClient, connect
from appliance.web.page import Assets, FolderLoader, NoPage
from appliance.web.session import Sessions
from appliance.web.settings import ConsoleSettings

SHARED = Path(__file__).parent
MOST_BODY_BYTES = 2**20
MOST_HEADER_BYTES = 32 * 2**10

Route = tuple[str, type[RequestHandler]]
Companion = Callable[[QueueClient], AbstractAsyncContextManager[object]]
"""Something that lives as long as the console does; handlers find it in the settings as `companion`."""


class Console(msgspec.Struct, frozen=True, kw_only=True):
    """One console: the folder of its templates and assets, its own routes below `prefix` (which ends in a slash)."""

    folder: Path
    prefix: str
    routes: Sequence[Route]
    companion: Companion


def log_request(handler: RequestHandler) -> None:
    """Log what went wrong and what changed something; who only looks, and the proxy's checks, are not worth a line."""
    request, status = handler.request, handler.get_status()
    if status >= 500 and status != 503:
        access_log.error("%d %s %s (%s)", status, request.method, request.path, request.remote_ip)
    elif request.method not in ("GET", "HEAD") or status in (401, 403, 429):
        access_log.info("%d %s %s (%s)", status, request.method, request.path, request.remote_ip)


def application(console: Console, context: ServiceContext, queue: QueueClient, companion: object) -> Application:
    """Return the console's application: its own routes and its assets."""
    prefix = console.prefix
    assets = [
        (rf"{prefix}static/shared/(.+)", Assets, {"path": str(SHARED / "static")}),
        (rf"{prefix}static/own/(.+)", Assets, {"path": str(console.folder / "static")}),
    ]
    return Application(
        [*assets, *((prefix + path, handler) for path, handler in console.routes)],
        default_handler_class=NoPage,
        template_loader=FolderLoader(console.folder / "templates", SHARED / "templates"),
        xsrf_cookies=True,
        xsrf_cookie_name="__Host-xsrf",
        xsrf_cookie_kwargs={"secure": True, "samesite": "Strict", "path": "/"},
        log_function=log_request,
        prefix=prefix,
        context=context,
        queue=queue,
        sessions=Sessions(queue),
        companion=companion,
    )


async def serve(console: Console) -> None:
    """Serve a console on its cluster leg until cancelled."""
    context = load()
    settings = context.parse_settings(ConsoleSettings)
    async with connect(context) as queue, console.companion(queue) as beside:
        app = application(console, context, queue, beside)
        # The firewall lets only the reverse proxy in, so its X-Forwarded-For can be believed.
        server = HTTPServer(app, xheaders=True, max_body_size=MOST_BODY_BYTES, max_header_size=MOST_HEADER_BYTES)
        leg = context.legs["cluster"]
        for address in (leg.v4, leg.v6):
            server.listen(settings.port, address=address)
        notify.ready()
        try:
            await asyncio.Event().wait()
        finally:
            server.stop()
            await server.close_all_connections()
