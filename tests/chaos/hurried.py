"""The broker's process where the disk is behind all the time: `python3 -m tests.chaos.hurried`.

The log is handed over after a few turns and its files are begun anew soon, and what the tables have is synced late. So
a cut takes pages that the broker has written, and more often than where half a MiB of turns is handed over together.
"""

import sys
import threading
import time

from appliance import notify
from appliance.queue import logged_store, redo, service, sqlite_file, sqlite_store
from appliance.queue.sqlite_file import Checkpoints

LATE_S = 0.3


class LateCheckpoints(Checkpoints):
    """Syncs the tables' log as late as a slow disk would."""

    def secure(self) -> None:
        """See Checkpoints."""
        if threading.current_thread() is self._thread:
            time.sleep(LATE_S)
        super().secure()


if __name__ == "__main__":
    logged_store.HAND_OVER_BYTES = 10_000
    redo.FILE_BYTES = 40_000
    sqlite_file.LOG_PAGES = 1000  # each checkpoint syncs the log as well
    redo.FILES_PART = 10**9  # so it is not, and a full disk stops it early
    setattr(sqlite_store, "Checkpoints", LateCheckpoints)  # noqa: B010  # a plain assignment would need an ignore
    sys.exit(notify.run(service.main))
