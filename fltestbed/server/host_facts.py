"""What a client says of its host, before it stands in the manifest: plain, finite and small."""

from typing import Any

from fltestbed.text import printable

MOST_VALUES = 4000
MOST_DEPTH = 6
MOST_TEXT = 500
MOST_KEY = 100
LARGEST_INTEGER = 1 << 64
KEPT_BY_THE_SERVER = ("probes", "stamp_error")
"""What the manifest says of a host in the server's own words."""


class HostFactsError(ValueError):
    """A description that cannot be; the text says what of it."""


def read_host(told: dict[str, Any]) -> dict[str, Any]:
    """The description with its texts made printable and cut at `MOST_TEXT`; what only the server says is left out.

    Raises
    ------
    HostFactsError
        It has more than `MOST_VALUES` values, nests deeper than `MOST_DEPTH`, or holds a number that JSON has not.
    """
    left = [MOST_VALUES]
    own = {key: value for key, value in told.items() if key not in KEPT_BY_THE_SERVER}
    return {printable(key, MOST_KEY): _read(value, 1, left) for key, value in own.items()}


def _read(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise HostFactsError(f"host: more than {MOST_VALUES} values")
    if depth > MOST_DEPTH:
        raise HostFactsError(f"host: nested deeper than {MOST_DEPTH}")
    if isinstance(value, dict):
        return {printable(key, MOST_KEY): _read(each, depth + 1, left) for key, each in value.items()}
    if isinstance(value, list):
        return [_read(each, depth + 1, left) for each in value]
    if isinstance(value, str):
        return printable(value, MOST_TEXT)
    if isinstance(value, bool) or value is None:
        return value
    if not isinstance(value, int | float) or not abs(value) <= LARGEST_INTEGER:  # NaN is not either
        raise HostFactsError(f"host: {printable(repr(value), 40)} is no number that a host has")
    return value
