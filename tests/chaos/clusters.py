"""A history of several clusters, as the broker of each sees it."""

from collections.abc import Mapping, Sequence

import msgspec

from appliance.queue.store import Brief, State
from tests.chaos.checker import Violation
from tests.chaos.history import Line, Publish, Published


def seen_from(here: str, history: Sequence[Line], stores: Mapping[str, Sequence[Brief]]) -> list[Line]:
    """Return what the actors of `lan/HERE` did, and what others published for it, under the names it has here.

    Actors are named `CLUSTER-…`. What the other store set aside or let expire was not carried, and is judged there.
    """
    at_home = f"lan/{here}/"
    seen: list[Line] = [line for line in history if line.by.startswith(f"{here}-")]
    bound = {(line.by, line.id) for line in history if isinstance(line, Publish) and line.address.startswith(at_home)}
    ended = {State.DEAD, State.EXPIRED, State.PURGED}
    kept = {(row.origin, row.id) for rows in stores.values() for row in rows if row.state in ended}
    for line in history:
        if isinstance(line, Publish | Published) and (line.by, line.id) in bound:
            by = f"lan/{line.by.partition('-')[0]}/{line.by}"
            if isinstance(line, Publish):
                seen.append(msgspec.structs.replace(line, by=by, address=line.address.removeprefix(at_home)))
            elif (line.by, line.id) not in kept:
                seen.append(msgspec.structs.replace(line, by=by))
    return sorted(seen, key=lambda line: line.at)


def lost_on_the_way(stores: Mapping[str, Sequence[Brief]]) -> list[Violation]:
    """What a bridge has ended here as done is in the store of the other cluster, whoever knows of it."""
    kept = {(here, row.origin, row.id) for here, rows in stores.items() for row in rows}
    carried = [
        (here, row, row.address.split("/")[1])
        for here, rows in stores.items()
        for row in rows
        if "/" in row.address and row.state == State.DONE
    ]
    return [
        Violation("lost", f"{(row.origin, row.id)} was carried from {here} to {there} and is not there")
        for here, row, there in carried
        if (there, f"lan/{here}/{row.origin}", row.id) not in kept
    ]
