"""Confirm or revert: a change that could cut its maker off is on trial, and undone unless it is confirmed in time.

What is needed to undo it is on disk before the change is, so that neither the death of this process nor of the machine
leaves anybody outside. Within a boot time is the monotonic clock's; the next boot begins by undoing.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.contracts.machine import EndedChange, PendingChange
from appliance.durable import place, sync
from appliance.errors import NOT_DECODED, ApplianceError, NotFound, Problem
from appliance.supervisor.inforce import ConfigFile, InForce, digest

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ChangePending(ApplianceError):
    """A change waits for its confirmation, so there cannot be another one."""

    code = "change-pending"
    hint = "Confirm it (`alpha-ren confirm`) or undo it (`alpha-ren revert`), or wait until it is undone by itself."
    status = 409


class NothingPending(NotFound):
    """There is no change to confirm or to undo."""

    code = "nothing-pending"
    hint = "`alpha-ren status` shows which configuration is in force."


class OtherChange(ApplianceError):
    """Another change is on trial than the one that was meant."""

    code = "other-change"
    hint = "Look at what it touches, as `alpha-ren status` and the console show it, and then keep that one or undo it."
    status = 409


class Undone(ApplianceError):
    """A change was not confirmed."""

    code = "change-undone"
    hint = "The configuration before it is in force. Apply it again, and then confirm it with `alpha-ren confirm`."
    status = 409


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A configuration on trial: its digest, whether there was a file before, and what it touches.

    It ends at `until`, in seconds of the monotonic clock of the boot with this id.
    """

    digest: str
    replaces: bool
    touched: tuple[str, ...]
    boot: str
    until: float
    version: int = 1


class Probation:
    """The one change that may be on trial. `undone` is what became of the last one where nobody asked for its undoing,
    `ended` what became of it in any case; a restart of this process forgets it.
    """

    def __init__(
        self,
        directory: Path,
        config: ConfigFile,
        *,
        boot_id: Callable[[], str] = lambda: BOOT_ID.read_text(encoding="ascii").strip(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / "trial.json"
        self._config = config
        self._boot_id = boot_id
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._trial: Trial | None = None
        self.undone: Problem | None = None
        self.ended: EndedChange | None = None

    @property
    def pending(self) -> PendingChange | None:
        """The change that waits for its confirmation."""
        if self._trial is None:
            return None
        return PendingChange(digest=self._trial.digest, touched=self._trial.touched, seconds_left=self._left_s())

    def take_over(self) -> None:
        """Go on with the trial that was on disk when this process began; undo one of an earlier boot. Blocks."""
        try:
            self._trial = msgspec.json.decode(self._path.read_bytes(), type=Trial)
        except FileNotFoundError:
            return
        except NOT_DECODED as error:
            log.error("the note of a change on trial is not understood: %s", error)
            return
        if not self._is_in_force(self._trial):
            log.warning("the change on trial never came into force, or another configuration has taken its place")
            self._forget()
        elif self._trial.boot != self._boot_id():
            self._undo("the machine was restarted before it was confirmed")
        elif self._is_over():
            self._undo("it was not confirmed in time")

    def refuse_another(self) -> None:
        """Raise ChangePending while one is pending."""
        pending = self.pending
        if pending is not None:
            raise ChangePending(
                f"A change is on trial for {pending.seconds_left:.0f} seconds more, and has not been confirmed."
            )

    def read(self) -> InForce:
        """Return what is in force now (see ConfigFile). Blocks."""
        return self._config.read(on_trial="" if self._trial is None else self._trial.digest)

    async def put(self, text: str, touched: tuple[str, ...], within_s: float) -> str:
        """Put a configuration in place, on trial where it touches a way in, and return its digest.

        Raise InvalidConfig or ChangePending, and then nothing was changed.
        """
        async with self._lock:
            self.refuse_another()
            self.undone = self.ended = None
            await asyncio.to_thread(self._put, text, touched, within_s)
        if touched:
            log.warning("a change is on trial for %g s: %s", within_s, "; ".join(touched))
            self._changed.set()
        return digest(text.encode())

    async def count_from_now(self, within_s: float) -> None:
        """Let the time begin now, since only now is all of the change in force."""
        async with self._lock:
            if self._trial is not None:
                later = msgspec.structs.replace(self._trial, until=self._monotonic() + within_s)
                await asyncio.to_thread(self._note, later)
        self._changed.set()

    async def confirm(self, digest: str, who: str) -> None:
        """Keep the change of this digest (empty: whichever is pending); raise NothingPending, OtherChange or Undone."""
        async with self._lock:
            trial = self._meant(digest)
            if self._is_over():
                raise Undone("The change is undone, because it was not confirmed in time.")
            await asyncio.to_thread(self._forget)
            self.ended = EndedChange(digest=trial.digest, kept=True, said=f"The last change was kept by {who}.")
        log.warning("the change was confirmed by %s", who)
        self._changed.set()

    async def revert(self, digest: str, who: str) -> None:
        """Undo the change of this digest (empty: whichever is pending) before its time; raise as `confirm` does."""
        async with self._lock:
            self._meant(digest)
            await asyncio.to_thread(self._undo, f"{who} said so")
            self.undone = None
        self._changed.set()

    async def watch(self, undone: Callable[[], None]) -> None:
        """Undo whatever is not confirmed in time, and call `undone`; until cancelled."""
        while True:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._trial is None else self._left_s()):
                    await self._changed.wait()
            async with self._lock:
                if self._trial is None or not self._is_over():
                    continue
                await asyncio.to_thread(self._undo, "it was not confirmed in time")
            undone()

    def _meant(self, digest: str) -> Trial:
        if self._trial is None:
            if self.ended is not None and not self.ended.kept and self.ended.digest == digest:
                raise Undone(self.ended.said)
            raise NothingPending("There is no change that waits for its confirmation.")
        if digest not in ("", self._trial.digest):
            raise OtherChange("Another change is on trial than the one that was meant.")
        return self._trial

    def _left_s(self) -> float:
        return 0.0 if self._trial is None else max(0.0, self._trial.until - self._monotonic())

    def _is_over(self) -> bool:
        return self._left_s() == 0.0

    def _is_in_force(self, trial: Trial) -> bool:
        return self._config.digest() == trial.digest

    def _put(self, text: str, touched: tuple[str, ...], within_s: float) -> None:
        if touched:
            # How to undo it comes first: after a power cut between the two there is nothing to undo, and it is noticed.
            self._note(
                Trial(
                    digest=digest(text.encode()),
                    replaces=self._config.set_aside(),
                    touched=touched,
                    boot=self._boot_id(),
                    until=self._monotonic() + within_s,
                )
            )
        try:
            self._config.write(text)
        except BaseException:
            self._forget()
            raise

    def _note(self, trial: Trial) -> None:
        place(self._path, msgspec.json.encode(trial))
        self._trial = trial

    def _forget(self) -> None:
        self._path.unlink(missing_ok=True)
        sync(self._path.parent)
        self._trial = None

    def _undo(self, reason: str) -> None:
        if self._trial is not None and self._is_in_force(self._trial):
            self._config.put_back(there_was_one=self._trial.replaces)
            self.undone = Undone(f"The last change was undone, because {reason}.").problem
            self.ended = EndedChange(digest=self._trial.digest, kept=False, said=self.undone.message)
            log.warning("%s", self.undone.message)
        self._forget()
