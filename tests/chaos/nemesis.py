"""What goes wrong, and when: a schedule that follows from its seed."""

import random
from typing import Literal, get_args

import msgspec

Kind = Literal[
    "kill-broker", "power-cut", "torn-power-cut", "pause-broker", "restart-broker", "pause-consumer", "kill-consumer",
    "kill-producer", "cut-network", "hold-network", "one-way-network", "full-disk", "write-error", "sync-error",
    "clock-ahead", "clock-behind", "kill-bridge", "pause-bridge", "kill-gate", "rotate-key", "backup", "purge",
    "requeue",
]  # fmt: skip
"""What a cluster meets with: faults, and what its operator does meanwhile."""

EVERYTHING: tuple[Kind, ...] = get_args(Kind)
GAP_S = (0.2, 0.8)


class Step(msgspec.Struct, frozen=True):
    """One fault: when it begins, how long it lasts, and what its details are drawn from."""

    at_s: float
    kind: Kind
    for_s: float
    seed: str


def schedule(seed: str, duration_s: float, lease_s: float, kinds: tuple[Kind, ...] = EVERYTHING) -> list[Step]:
    """Return the faults of a run, one after the other: all kinds in some order, then all in another, and so on."""
    dice = random.Random(seed)
    steps: list[Step] = []
    at, waiting = 1.0, list[Kind]()
    while True:
        if not waiting:
            waiting = dice.sample(kinds, len(kinds))
        kind = waiting.pop()
        pause = kind.startswith("pause") or kind.endswith("network")
        for_s = round(dice.uniform(1.2, 2.5) * lease_s if pause else dice.uniform(0.3, 1.2), 2)
        if at + for_s > duration_s:
            return steps
        steps.append(Step(at, kind, for_s, f"{seed}/{len(steps)}"))
        at = round(at + for_s + dice.uniform(*GAP_S), 2)
