"""What every unit test shares: no generated example is judged by the time it took, since timing is for tests/bench."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.unit.supervisor.queue_asked import Supervisor

settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor for `alpha-ren queue`, asked by eve from no terminal."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setenv("SUDO_USER", "eve")
    supervisor = Supervisor(tmp_path)
    with supervisor.stub:
        yield supervisor
