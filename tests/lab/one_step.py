"""Put into a box: supervisors that are killed (SIGKILL) after every step, each followed by the next."""

import os
import signal
import sys
from collections.abc import Coroutine

from appliance.errors import Problem
from appliance.supervisor import service
from appliance.supervisor.reconcile import Reconciler

ENDED = "a supervisor was killed after a step"


class OneStep(Reconciler):
    """Lives for one step; what this kernel cannot do is none."""

    async def _tried(self, what: str, work: Coroutine[None, None, None], problems: list[Problem]) -> bool:
        done = await super()._tried(what, work, problems)
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def main() -> None:
    """Let one supervisor after the other live in a process of its own, which begins with all code read."""
    vars(service)["Reconciler"] = OneStep
    while True:
        process = os.fork()
        if process == 0:
            sys.exit(service.main())
        if os.WIFSIGNALED(os.waitpid(process, 0)[1]):
            print(ENDED, flush=True)


if __name__ == "__main__":
    main()
