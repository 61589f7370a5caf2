"""The portal's process: `python3 -m appliance.portal.service`."""

import sys
from pathlib import Path

from appliance import notify
from appliance.portal.catalogue import following
from appliance.portal.pages import ROUTES
from appliance.web.server import Console, serve


async def main() -> None:
    """Serve the portal until cancelled."""
    await serve(Console(folder=Path(__file__).parent, prefix="/portal/", routes=ROUTES, companion=following))


if __name__ == "__main__":
    sys.exit(notify.run(main))
