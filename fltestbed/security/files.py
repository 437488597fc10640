"""Files of keys and certificates: secrets that nobody else can read, nothing overwritten by accident, never half a file."""

import os
import secrets
from pathlib import Path

from fltestbed.errors import ConfigError, HostError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
READABLE_BY_OTHERS = 0o007


def write_new(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write a file that must not exist; it appears whole and with its mode, or not at all.

    Raises
    ------
    FileExistsError
        It is there already, or another process was first.
    """
    temporary = _write_beside(path, data, mode)
    try:
        path.hardlink_to(temporary)
    finally:
        temporary.unlink()


def replace(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Put a file in the place of another; a reader finds the old one or the new one."""
    _write_beside(path, data, mode).replace(path)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(data)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(path)  # a disk that is full does not say which file found no room
        raise
    return temporary


def check_private(path: Path) -> None:
    """Refuse a secret that every user of this host can read.

    Raises
    ------
    HostError
    """
    mode = path.stat().st_mode & 0o777
    if mode & READABLE_BY_OTHERS:
        raise HostError(f"{path}: a secret that everybody on this host may read (mode {mode:04o}); chmod 600 {path}")


def read(path: Path, what: str, remedy: str) -> bytes:
    """Read a file that has to be there.

    Raises
    ------
    ConfigError
        With what the file is for and what to do.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {what} cannot be read ({error.strerror}); {remedy}") from error
