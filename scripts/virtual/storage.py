"""What a virtual machine keeps between runs: its disk and its UEFI variables, in one directory."""

import contextlib
import enum
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scripts.virtual.errors import ImageMissing, MachineBusy
from scripts.virtual.firmware import Firmware, qemu_img

_SCHEMA = 1
DISK_SIZE = "16G"


class Origin(enum.Enum):
    """Where the disk that is about to be booted comes from."""

    NEW = "a new machine"
    KEPT = "the machine of the last run"
    REPLACED = "a new machine, since the image was rebuilt; the former one is in `previous`"


class ImageStamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which image a disk was made from."""

    version: int
    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, image: Path) -> "ImageStamp":
        """The stamp of an image file; `ImageMissing` if it does not exist."""
        try:
            status = image.stat()
        except FileNotFoundError as error:
            raise ImageMissing(f"There is no image at {image}.") from error
        return cls(_SCHEMA, str(image.resolve()), status.st_size, status.st_mtime_ns)


class Storage:
    """The directory of one virtual machine. Writes to the image go to an overlay; the image itself is never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk.qcow2"
        self.variables = folder / "variables.qcow2"
        self._stamp = folder / "machine.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the machine's lock, yield its descriptor; `MachineBusy` if another process holds it.

        QEMU inherits the descriptor: the lock lasts until both are gone, even when the starter was killed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise MachineBusy(f"The machine in {self.folder} is running already (process {holder}).") from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    async def prepare(self, image: Path, firmware: Firmware, *, fresh: bool = False) -> Origin:
        """Make the disk and the variables unless those of the last run fit the image. The lock must be held."""
        stamp = ImageStamp.of(image)
        former = self._former_stamp()
        if fresh:
            self._discard()
        elif former == stamp:
            return Origin.KEPT
        elif former is not None:
            self._set_aside()
        base = self._own_image(image)
        await firmware.new_variables(self.variables)
        await qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", _format_of(image), str(self.disk), DISK_SIZE)
        # Last of all: without the stamp whatever lies here counts as unfinished.
        self._stamp.write_bytes(msgspec.json.encode(stamp))
        return Origin.REPLACED if former is not None and not fresh else Origin.NEW

    def _former_stamp(self) -> ImageStamp | None:
        try:
            return msgspec.json.decode(self._stamp.read_bytes(), type=ImageStamp)
        except (FileNotFoundError, msgspec.DecodeError):
            # A stamp of another version, or half a stamp, describes nothing that can be booted.
            return None

    def _own_image(self, image: Path) -> str:
        """A name for the image that a rebuild does not pull from under the overlay."""
        own = self.folder / f"image{image.suffix}"
        own.unlink(missing_ok=True)
        try:
            os.link(image.resolve(), own)
        except OSError:
            # Another file system: the overlay then leans on the image in place, and a rebuild means a new machine.
            return str(image.resolve())
        return own.name

    def _discard(self) -> None:
        self._stamp.unlink(missing_ok=True)
        for path in (self.disk, self.variables, *self.folder.glob("image.*")):
            path.unlink(missing_ok=True)

    def _set_aside(self) -> None:
        """Keep the former machine whole in `previous`: nobody asked for its data to be thrown away."""
        previous = self.folder / "previous"
        previous.mkdir(exist_ok=True)
        for path in previous.iterdir():
            path.unlink()
        self._stamp.rename(previous / self._stamp.name)
        for path in (self.disk, self.variables, *self.folder.glob("image.*")):
            if path.exists():
                path.rename(previous / path.name)


def _format_of(image: Path) -> str:
    return "qcow2" if image.suffix == ".qcow2" else "raw"
