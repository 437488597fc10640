"""The secrets of a cell: each SIM's keys and the database's password, drawn here and kept in one file of mode 0600."""

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fltestbed.errors import ConfigError
from fltestbed.security.files import check_private, replace

KEY_PATTERN = r"[0-9a-f]{32}"


@dataclass(frozen=True)
class SimKeys:
    """K and OPc of a SIM (TS 35.206), 128 bits each as hexadecimal digits."""

    key: str
    opc: str


@dataclass(frozen=True)
class Keys:
    """What nobody else may know.

    Attributes
    ----------
    database_password : str
    sims : dict of str to SimKeys
        By IMSI.
    """

    database_password: str
    sims: dict[str, SimKeys]


def keep_keys(path: Path, imsis: Iterable[str]) -> Keys:
    """Read the keys, draw those that are missing, and write the file if any were.

    Keys of SIMs that are in the file alone stay there: a SIM may come back. The keys of a SIM that cannot be written are put
    into the file by hand.

    Raises
    ------
    ConfigError
        The file is not as this function writes it.
    HostError
        Others may read it.
    """
    kept = _read(path)
    sims = dict(kept.sims) if kept else {}
    drawn = {imsi: SimKeys(secrets.token_hex(16), secrets.token_hex(16)) for imsi in imsis if imsi not in sims}
    keys = Keys(kept.database_password if kept else secrets.token_hex(16), sims | drawn)
    if kept is None or drawn:
        plain = {
            "database_password": keys.database_password,
            "sims": {imsi: {"key": sim.key, "opc": sim.opc} for imsi, sim in keys.sims.items()},
        }
        replace(path, (json.dumps(plain, indent=2) + "\n").encode())
    return keys


def _read(path: Path) -> Keys | None:
    if not path.exists():
        return None
    check_private(path)
    try:
        plain = json.loads(path.read_text())
        return Keys(_checked(plain["database_password"]), {imsi: _sim(sim) for imsi, sim in plain["sims"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not a file of keys: 32 hexadecimal digits in lower case are needed for database_password, and for key "
            f"and opc of each SIM ({type(error).__name__}); mend it, or put it away to have all keys drawn anew"
        ) from error


def _sim(plain: dict[str, Any]) -> SimKeys:
    return SimKeys(_checked(plain["key"]), _checked(plain["opc"]))


def _checked(text: str) -> str:
    if not re.fullmatch(KEY_PATTERN, text):
        raise ValueError(text)  # no part of any message
    return text
