"""What a run of these tests leaves when it is killed is taken away by the next."""

import subprocess

import pytest

from tests.unit.host.place import left_behind


@pytest.fixture(scope="session", autouse=True)
def tidy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unpin the namespaces that nobody has any more, so that pytest can remove the folders."""
    for path in left_behind(tmp_path_factory.getbasetemp().parent):
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=30)
