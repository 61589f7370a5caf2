"""What every lab test shares: the report of a failed test ends with the journals of its machines."""

from collections.abc import Generator

import pytest

from scripts.labs.session import Lab

TAIL_LINES = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Save the journals of the labs that are open when a test fails, and show how they end."""
    report = yield
    if report.failed:
        for lab in Lab.all_open():
            for path in lab.save_logs(item.name.replace("/", "_")):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                report.sections.append((f"end of {path}", "\n".join(lines[-TAIL_LINES:])))
    return report
