"""Checkpoints of a run: the global model after a round, and the strategy's state.

One file a round in the run folder's `checkpoints`, ``round-000004-<digest>.npz``: an archive of NumPy arrays, which
`numpy.load` opens without pickle, and `about.json`. The model's arrays stand in it byte for byte as Flower holds them
(``model/<name>.npy``). A file gets its name when all of it is on the disk, and the name holds the first digits of the
file's SHA-256, so a half or damaged one is recognised. The last two are kept.

Writing is a thread's business (`CheckpointWriter`): the round loop gives a snapshot away and goes on. It is done while the
loop waits for replies, as both share Python's lock. Of rounds that are quicker than the disk, the latest is written.
"""

import hashlib
import io
import json
import math
import os
import re
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fltestbed.clock import Clock
from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.flower.strategy_state import Blobs, Snapshot
from fltestbed.text import printable

FOLDER = "checkpoints"
KEPT = 2
FORMAT = 1
WRITE_BYTES = 1 << 20
"""At once: where a write takes milliseconds, one for each tensor and each of its headers would take longer than a round."""
PATIENCE_S = 1.0
"""After so long a checkpoint is written though its process is busy."""
_NAME = re.compile(r"round-(\d{6,})-([0-9a-f]{16})\.npz")
_UNFINISHED = ".unfinished"
_NUMPY = "numpy.ndarray"
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError, MemoryError, EOFError,
    zipfile.BadZipFile,
)  # fmt: skip
"""What reading bytes that somebody else has written may raise: RuntimeError is zipfile's of an encrypted member, for one."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two rounds.

    Attributes
    ----------
    round : int
        The last round that is over.
    arrays : ArrayRecord
        The global model after it.
    state : Snapshot
        The strategy's.
    """

    round: int
    arrays: ArrayRecord
    state: Snapshot


@dataclass(frozen=True)
class Found:
    """The checkpoint that a run goes on from.

    Attributes
    ----------
    path : Path or None
        None where there is none that is whole.
    round : int or None
        Its round.
    damaged : tuple of str
        Names of newer ones that cannot be used.
    ahead : tuple of str
        Names of newer ones of rounds whose rows are not all on the disk.
    """

    path: Path | None = None
    round: int | None = None
    damaged: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A checkpoint is on the disk; `seconds` since its snapshot was taken."""

    round: int
    seconds: float
    bytes: int


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint to the disk, and remove all but the last two.

    Raises
    ------
    OSError
        The disk is full, or the folder is gone; what was there before is still there.
    """
    folder.mkdir(exist_ok=True)
    unfinished = folder / f"round-{checkpoint.round:06}{_UNFINISHED}"
    try:
        with unfinished.open("wb", buffering=WRITE_BYTES) as file:
            hashed = _Hashed(file)
            _pack(hashed, checkpoint)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"round-{checkpoint.round:06}-{hashed.digest.hexdigest()[:16]}.npz"
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    older = [file for file in _newest_first(folder) if file != path]
    for old in older[KEPT - 1 :]:
        old.unlink(missing_ok=True)
    return path


def find(folder: Path, is_recorded: Callable[[int], bool] = lambda _: True) -> Found:
    """The newest checkpoint in a run folder's `checkpoints` whose bytes are what its name says, of a recorded round."""
    damaged: list[str] = []
    ahead: list[str] = []
    for file in _newest_first(folder):
        match = _NAME.fullmatch(file.name)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if match is None or not digest.startswith(match[2]):
            damaged.append(file.name)
        elif not is_recorded(int(match[1])):
            ahead.append(file.name)
        else:
            return Found(file, int(match[1]), tuple(damaged), tuple(ahead))
    return Found(damaged=tuple(damaged), ahead=tuple(ahead))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    RunFolderError
        It is none, or of a newer format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size)
            about = json.loads(archive.read("about.json"))
            if about["format"] > FORMAT:
                raise RunFolderError(
                    f"{path}: a checkpoint of a newer fltestbed (format {about['format']}); upgrade this one"
                )
            arrays = {
                name: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=archive.read(member))
                for name, dtype, shape, stype, member in about["model"]
            }
            blobs: Blobs = {}
            for name, kind in about["blobs"]:
                data = archive.read(f"{name}.{kind}")
                blobs[name] = data if kind == "bin" else _read_array(data)
        return Checkpoint(
            int(about["round"]), ArrayRecord(arrays), Snapshot(about["state"], blobs, tuple(about["left_out"]))
        )
    except UNREADABLE as error:
        raise RunFolderError(f"{path}: not a checkpoint: {printable(str(error), 200)}") from error


def _check_sizes(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Raise ValueError where members would take more than the file: compressed ones, or several of the same bytes."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a member of it is compressed")
    if sum(member.file_size for member in members) > file_bytes:
        raise ValueError("its members are larger than the file")


def _read_array(data: bytes) -> NDArray[Any]:
    """An array whose header promises what follows it, before room is made for that."""
    stream = io.BytesIO(data)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, kind = read_header[np.lib.format.read_magic(stream)](stream)
    if kind.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    if math.prod(shape) * kind.itemsize != len(data) - stream.tell():
        raise ValueError(f"{len(data) - stream.tell()} bytes are no array of shape {str(shape)[:60]}")
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


class _Hashed:
    """A file that is written from its begin to its end, as an archive is that cannot seek, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash."""
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Not before the end."""


def _pack(file: Any, checkpoint: Checkpoint) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        model = []
        for name, array in checkpoint.arrays.items():
            member = f"model/{name}.{'npy' if array.stype == _NUMPY else 'bin'}"
            model.append([name, array.dtype, list(array.shape), array.stype, member])
            archive.writestr(member, array.data)
        blobs = []
        for name, blob in checkpoint.state.blobs.items():
            kind = "bin" if isinstance(blob, bytes) else "npy"
            blobs.append([name, kind])
            with archive.open(f"{name}.{kind}", "w", force_zip64=True) as member_file:
                if isinstance(blob, bytes):
                    member_file.write(blob)
                else:
                    np.lib.format.write_array(member_file, blob, allow_pickle=False)
        about = {
            "format": FORMAT, "round": checkpoint.round, "model": model, "blobs": blobs, "state": checkpoint.state.tree,
            "left_out": checkpoint.state.left_out,
        }  # fmt: skip
        archive.writestr("about.json", json.dumps(about))


def _newest_first(folder: Path) -> list[Path]:
    files = folder.glob("round-*.npz") if folder.is_dir() else ()
    return sorted((file for file in files if _NAME.fullmatch(file.name)), key=lambda file: file.name, reverse=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CheckpointWriter:
    """Writes checkpoints in a thread of its own.

    Parameters
    ----------
    folder : Path
        The run folder's `checkpoints`.
    clock : Clock
        Times the writing.
    idle : Event
        Set while the process has nothing else to do.
    """

    def __init__(self, folder: Path, clock: Clock, idle: threading.Event) -> None:
        self._idle = idle
        self._folder = folder
        self._clock = clock
        self._next: tuple[Checkpoint, int] | None = None
        self._changed = threading.Condition()
        self._is_over = False
        self._failure: OSError | None = None
        self._written: deque[Written] = deque()
        for unfinished in folder.glob(f"*{_UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def put(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint written; one that still waits for its turn is forgotten.

        Raises
        ------
        TestbedError
            An earlier one could not be written.
        """
        self._raise_failure()
        with self._changed:
            self._next = checkpoint, self._clock.raw_ns()
            self._changed.notify()

    def take_written(self) -> Iterable[Written]:
        """What has come to the disk since the last call."""
        while self._written:
            yield self._written.popleft()

    def close(self) -> None:
        """Write what waits, and end.

        Raises
        ------
        TestbedError
            It could not be written.
        """
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._idle.set()
        self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise TestbedError(
                f"{self._folder}: a checkpoint cannot be written: {self._failure.strerror}; make room, and --resume the run"
            ) from self._failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._is_over)
            self._idle.wait(PATIENCE_S)
            with self._changed:
                waiting, self._next = self._next, None
            if waiting is None:
                return
            checkpoint, taken_ns = waiting
            try:
                path = save(self._folder, checkpoint)
                size = path.stat().st_size
            except OSError as error:
                self._failure = error
                return
            self._written.append(Written(checkpoint.round, (self._clock.raw_ns() - taken_ns) / 1e9, size))
