"""ARWADM's process: `python3 -m appliance.arwadm.service`."""

import sys
from pathlib import Path

from appliance import notify
from appliance.arwadm import letters, metrics, pages, trial
from appliance.arwadm.picture import watching
from appliance.web.server import Console, serve

ROUTES = (*pages.ROUTES, *letters.ROUTES, *metrics.ROUTES, *trial.ROUTES)


async def main() -> None:
    """Serve the console until cancelled."""
    await serve(Console(folder=Path(__file__).parent, prefix="/", routes=ROUTES, companion=watching))


if __name__ == "__main__":
    sys.exit(notify.run(main))
