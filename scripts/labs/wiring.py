"""The one place where the lab changes the kernel's network: batches for ip(8), made in `lan`, applied here."""

from pathlib import Path

from scripts.labs.errors import LabError
from scripts.labs.process import Children, tail

DEADLINE_S = 10.0


async def apply(children: Children, batch: str, log: Path, *, namespace: str = "") -> None:
    """Apply `batch` in the named network namespace, or the keeper's own; raise LabError with ip(8)'s own words."""
    status = await _run(children, batch, log, ["-netns", namespace] if namespace else [])
    if status:
        raise LabError(f"The lab's network could not be made: {tail(log)}")


async def undo(children: Children, batch: str, log: Path) -> None:
    """Apply `batch`, which removes things, as far as they are there."""
    await _run(children, batch, log.with_name("_undone.log"), ["-force"])


async def _run(children: Children, batch: str, log: Path, options: list[str]) -> int:
    path = log.with_suffix(".batch")
    path.write_text(batch, encoding="utf-8")
    return await children.run(["ip", *options, "-batch", str(path)], log=log, deadline_s=DEADLINE_S)
