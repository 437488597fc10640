"""How names are put in order and durations written in captions."""

import re


def natural(name: str) -> str:
    """Key that puts the server first and client-2 before client-10."""
    return "" if name == "server" else re.sub(r"\d+", lambda digits: digits.group().zfill(9), name)


def milliseconds(value_s: float) -> str:
    """Write a duration with two digits, in milliseconds where it is short."""
    return f"{value_s * 1e3:.2g} ms" if value_s < 0.1 else f"{value_s:.2g} s"
