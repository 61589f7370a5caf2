"""`alpha-ren queue`: what an operator sees of the queue, and does with the messages in it."""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from appliance import cli_store
from appliance.cli_text import (
    DONE,
    Command,
    ask_supervisor,
    confirm,
    error_text,
    harmless,
    is_away,
    person,
    positive,
    print_json,
    size_text,
    table,
    time_text,
)
from appliance.contracts.bridge import Backlog, RoutesStatus, backlogs
from appliance.contracts.letters import (
    EVERY_ADDRESS,
    Browse,
    Changed,
    Choice,
    Letter,
    Peek,
    Purge,
    Requeue,
)
from appliance.contracts.traffic import Depth, Message, Messages, QueueStats, RecentQuery
from appliance.errors import ApplianceError, InvalidInput, Unavailable
from appliance.queue.address import check_pattern, matches
from appliance.queue.errors import NOT_SERVED
from appliance.queue.metrics import exposition
from appliance.queue.onward import UNCOUNTED
from appliance.queue.preview import readable

C = TypeVar("C", bound=Choice)

STATES = {"ready": "waiting", "leased": "in hand"}
AT_ONCE = 1000
TAIL_EVERY_S = 0.5

EPILOG = """\
An ADDRESS may be a pattern, in which `*` stands for any run of characters but `/`; put it in quotes. A NUMBER is what
`dead`, `tail` and `peek` show in front of a message.
"""


class NoBridge(Unavailable):
    """There are no routes to other clusters, or their bridge is being started."""

    code = "no-bridge"
    hint = "It runs where the configuration has `[[queue.routes]]`; `alpha-ren status` shows whether it does."


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `queue` and what is below it to the command's parser."""
    queue = commands.add_parser(
        "queue",
        help="the queue: its addresses, dead letters, figures, backup",
        description="Look at the queue and tend it. Alone it is `ls`.",
        epilog=EPILOG,
    )
    queue.add_argument("--json", action="store_true", help="as JSON, for programs")
    queue.set_defaults(run=_ls, address="")
    below = queue.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        parser = below.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EPILOG)
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON, for programs")
        parser.set_defaults(run=run)
        return parser

    def add_address(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("address", metavar="ADDRESS", nargs="?", default="", help="only there; else everywhere")

    def add_choice(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("which", metavar="NUMBER|ADDRESS", nargs="+", help="single messages, or all at an address")
        parser.add_argument("--limit", type=positive, default=sys.maxsize, metavar="N", help="at most N of an address")

    add_address(add("ls", _ls, "how many messages each address holds"))
    dead = add("dead", _dead, "the dead letters, oldest first, and why they died")
    add_address(dead)
    dead.add_argument("-n", "--limit", type=positive, default=100, metavar="N", help="at most N (default: 100)")
    peek = add("peek", _peek, "a message with its history and its body")
    peek.add_argument("number", type=positive, metavar="NUMBER")
    peek.add_argument("--bytes", type=positive, default=2**16, metavar="N", help="at most N of its body; else 65536")
    peek.add_argument("--raw", action="store_true", help="the bytes of the body and nothing else")
    tail = add("tail", _tail, "the newest messages, and each that comes, until interrupted")
    add_address(tail)
    tail.add_argument("-n", "--lines", type=positive, default=10, metavar="N", help="begin with N (default: 10)")
    add_choice(add("requeue", _requeue, "let dead letters wait again, with all their attempts before them"))
    purge = add("purge", _purge, "drop dead letters, or with --waiting what waits, for good")
    add_choice(purge)
    purge.add_argument("--waiting", action="store_true", help="what waits, in place of dead letters")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    stats = add("stats", _stats, "how the broker fares: disk, commits, sessions")
    stats.add_argument("--prometheus", action="store_true", help="all figures in Prometheus' text format")
    add("routes", _routes, "the clusters that messages are taken to, and the key by which they know this one's bridge")
    cli_store.add_commands(add)


def _ls(options: argparse.Namespace) -> int:
    pattern = _pattern(options.address)
    stats = ask_supervisor(options, "queue.stats", QueueStats)
    depths = _depths(stats, pattern) if pattern else stats.depths
    if options.json:
        print_json(msgspec.structs.replace(stats, depths=depths))
        return DONE
    head = ("ADDRESS", "WAITING", "IN HAND", "DEAD", "DONE", "EXPIRED", "PURGED", "CONSUMERS", "SIZE")
    print("\n".join(table(head, [_row(depth) for depth in depths])))
    return DONE


def _pattern(text: str) -> str:
    """Return an address or pattern from the command line, empty where none was given; raise BadAddress."""
    return check_pattern(text) if text else ""


def _depths(stats: QueueStats, pattern: str) -> tuple[Depth, ...]:
    short = pattern.removeprefix(f"{stats.broker}/")
    return tuple(depth for depth in stats.depths if matches(short, depth.address))


def _row(d: Depth) -> tuple[str, ...]:
    numbers = (d.ready, d.leased, d.dead, d.done_total, d.expired_total, d.purged_total, d.consumers)
    return (d.address, *map(str, numbers), size_text(d.bytes))


def _dead(options: argparse.Namespace) -> int:
    found = [message for part in _browsed(options) for message in part.messages][: options.limit]
    if options.json:
        print_json(Messages(messages=tuple(found)))
    elif found:
        rows = [
            (str(m.seq), time_text(m.changed_at), m.address, _attempts(m), m.id, m.reason)
            for m in found
        ]
        print("\n".join(table(("NUMBER", "DIED", "ADDRESS", "ATTEMPTS", "ID", "REASON"), rows)))
    else:
        print("There are no dead letters.")
    return DONE


def _attempts(m: Message) -> str:
    """Return how often it was tried, and of how many times where these are counted here."""
    return f"{m.attempt} of {m.max_attempts}" if m.max_attempts < UNCOUNTED else f"{m.attempt}"


def _browsed(options: argparse.Namespace) -> Iterator[Messages]:
    """Yield pages of dead letters until there are as many as wanted."""
    wanted: int = options.limit
    pattern = _pattern(options.address)
    for address in (pattern,) if pattern else EVERY_ADDRESS:
        after, full = 0, True
        while wanted and full:
            limit = min(wanted, AT_ONCE)
            page = ask_supervisor(options, "queue.browse", Messages, Browse(address=address, after=after, limit=limit))
            yield page
            wanted -= len(page.messages)
            full = len(page.messages) == limit
            after = page.messages[-1].seq if page.messages else after


def _peek(options: argparse.Namespace) -> int:
    request = Peek(seq=options.number, limit=min(options.bytes, 2**20), who=person())
    letter = ask_supervisor(options, "queue.peek", Letter, request)
    if options.raw:
        sys.stdout.buffer.write(letter.body)
    elif options.json:
        print_json(letter)
    else:
        print(letter_text(letter))
    return DONE


def letter_text(letter: Letter) -> str:
    """Return a message for a person: facts, history, body."""
    m = letter.message
    facts = (
        ("message", f"{m.seq}  {m.address}  {STATES.get(m.state, m.state)}"),
        ("id", m.id),
        ("origin", m.origin),
        ("key", letter.key or ""),
        ("published", time_text(m.published_at)),
        ("attempts", _attempts(m)),
        ("holder", m.holder),
        ("reason", m.reason),
        ("waits", f"{letter.waits_s:.0f} s more" if letter.waits_s else ""),
        ("not before", "" if letter.not_before is None else time_text(letter.not_before)),
        ("expires", "" if letter.expires_at is None else time_text(letter.expires_at)),
        ("body", f"{size_text(m.size)}, {letter.kind}" if letter.body else "none any more" if m.size else "empty"),
    )
    lines = [f"{name:<14}{harmless(value)}" for name, value in facts if value]
    rows = [(time_text(at.at), at.what, str(at.attempt), at.holder, at.reason) for at in letter.history]
    if rows:
        lines += ["", *table(("WHEN", "WHAT", "ATTEMPT", "HOLDER", "REASON"), rows)]
    if letter.body:
        lines += ["", *map(harmless, readable(letter).expandtabs().splitlines())]
    return "\n".join(lines)


def _tail(options: argparse.Namespace) -> int:
    newest: int | None = None
    away = False
    only = _pattern(options.address) or "*"
    while True:
        limit = min(options.lines, AT_ONCE) if newest is None else AT_ONCE
        query = RecentQuery(limit=limit, only=only)
        try:
            found = ask_supervisor(options, "queue.recent", Messages, query).messages
        except ApplianceError as error:
            if newest is None or not is_away(error):
                raise
            if not away:
                print(error_text(error.problem), file=sys.stderr)
            away = True
        else:
            away = False
            fresh = [message for message in reversed(found) if newest is None or message.seq > newest]
            for message in fresh:
                print(_tail_line(message, options), flush=True)
            newest = max([newest or 0, *(message.seq for message in fresh)])
        time.sleep(TAIL_EVERY_S)


def _tail_line(m: Message, options: argparse.Namespace) -> str:
    if options.json:
        return msgspec.json.encode(m).decode()
    facts = (str(m.seq), time_text(m.published_at), m.address, STATES.get(m.state, m.state), size_text(m.size))
    return harmless("  ".join((*facts, m.origin, m.id)))


def _requeue(options: argparse.Namespace) -> int:
    choice = _choice(options, Requeue)
    return _told(options, _change(options, "queue.requeue", choice), "requeued")


def _purge(options: argparse.Namespace) -> int:
    choice = msgspec.structs.replace(_choice(options, Purge), state="ready" if options.waiting else "dead")
    number = len(choice.seqs)
    if choice.address:
        stats = ask_supervisor(options, "queue.stats", QueueStats)
        number = sum(getattr(depth, choice.state) for depth in _depths(stats, choice.address))
    what = "waiting messages" if options.waiting else "dead letters"
    where = f" at {choice.address}" if choice.address else ""
    confirm(options, f"This drops {min(number, options.limit)} {what}{where} for good.")
    return _told(options, _change(options, "queue.purge", choice), "purged")


def _choice(options: argparse.Namespace, kind: type[C]) -> C:
    which: list[str] = options.which
    hint = "`alpha-ren queue dead` shows the numbers."
    if all(each.isdecimal() for each in which):
        try:
            return kind(seqs=tuple(dict.fromkeys(map(positive, which))), who=person())
        except ValueError as error:
            raise InvalidInput("No message has such a number.", hint=hint) from error
    if len(which) > 1:
        raise InvalidInput("What is wanted is numbers of messages, or one address.", hint=hint)
    return kind(address=check_pattern(which[0]), who=person())


def _change(options: argparse.Namespace, call: str, choice: Choice) -> int:
    """Ask slice by slice until all of it is done; return how many messages it were."""
    count, more = 0, True
    slices = [choice.seqs[at : at + AT_ONCE] for at in range(0, len(choice.seqs), AT_ONCE)]
    for seqs in slices:
        count += ask_supervisor(options, call, Changed, msgspec.structs.replace(choice, seqs=seqs)).count
    while choice.address and more and count < options.limit:
        choice = msgspec.structs.replace(choice, limit=min(AT_ONCE, options.limit - count))
        done = ask_supervisor(options, call, Changed, choice)
        count, more = count + done.count, done.more
        choice = msgspec.structs.replace(choice, after=done.last)
    return count


def _told(options: argparse.Namespace, count: int, what: str) -> int:
    if options.json:
        print_json(Changed(count=count))
    else:
        print(f"{count} message{'' if count == 1 else 's'} {what}.")
    return DONE


def _stats(options: argparse.Namespace) -> int:
    stats = ask_supervisor(options, "queue.stats", QueueStats)
    if options.prometheus:
        print(exposition(stats, backlogs(stats, _bridge(options) if stats.routes else None)), end="")
    elif options.json:
        print_json(stats)
    else:
        print(stats_text(stats))
    return DONE


def _bridge(options: argparse.Namespace) -> RoutesStatus | None:
    """Return what the bridge says, None where none runs."""
    try:
        return ask_supervisor(options, "bridge.routes", RoutesStatus)
    except ApplianceError as error:
        if error.problem.code == NOT_SERVED:
            return None
        raise


def _routes(options: argparse.Namespace) -> int:
    status = _bridge(options)
    if status is None:
        raise NoBridge("No bridge runs here.")
    if options.json:
        print_json(status)
        return DONE
    stats = ask_supervisor(options, "queue.stats", QueueStats)
    print(f"The bridge of {status.place} has the public key {status.public_key}")
    print(f"Its next one is {status.next_key}\n" if status.next_key else "")
    head = ("TO", "ENTRANCE", "STATE", "WAITING", "SIZE", "LAG", "SENT", "REFUSED", "PROBLEM")
    print("\n".join(table(head, [_route_row(each) for each in backlogs(stats, status)])))
    return DONE


def _route_row(b: Backlog) -> tuple[str, ...]:
    held = (f"{b.waiting}", size_text(b.bytes))
    if b.route is None:
        return (b.to, "", "not taken up yet", *held, "", "", "", "")
    route = b.route
    state = "connected" if route.connected else "away"
    numbers = (*held, f"{route.lag_s:.1f} s", f"{route.sent_total}", f"{route.refused_total}")
    return (b.to, route.endpoint.removeprefix("tcp://"), state, *numbers, route.problem)


def stats_text(stats: QueueStats) -> str:
    """Return the broker's figures for a person."""
    depths = stats.depths
    mean_ms = stats.commit_s / stats.commits * 1000 if stats.commits else 0.0
    facts = (
        ("publishers", "told to come back later" if stats.busy else "served"),
        ("waiting", f"{sum(d.ready for d in depths)}, in hand {sum(d.leased for d in depths)}"),
        ("dead letters", f"{sum(d.dead for d in depths)}"),
        ("held", f"{size_text(stats.bytes)}, {size_text(stats.disk_free)} of the disk free"),
        ("commits", f"{stats.commits}, {mean_ms:.2f} ms each on average"),
        ("rounds", f"{stats.turns}"),
        ("remembered", f"{stats.remembered} ended messages; a repeat is known for {stats.remembered_s / 3600:.1f} h"),
        ("sessions", f"{stats.sessions}: {', '.join(stats.clients)}"),
    )
    return "\n".join(f"{name:<14}{harmless(value)}" for name, value in facts)
