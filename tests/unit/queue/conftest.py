"""Brokers for the tests of the queue."""

from collections.abc import Iterator

import pytest

from tests.unit.queue.running import Broker, running


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that a module's tests share; each uses addresses of its own and leaves the process alone."""
    with running() as started:
        yield started


@pytest.fixture
def hasty() -> Iterator[Broker]:
    """A broker of one's own whose leases lapse after half a second."""
    with running(lease_s=0.5, heartbeat_s=0.1) as started:
        yield started
