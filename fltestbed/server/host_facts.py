"""What a client says of its host, before it stands in the manifest: plain, finite and small."""

from typing import Any

from fltestbed.text import printable

MOST_VALUES = 4000
MOST_DEPTH = 6
MOST_TEXT = 500
MOST_KEY = 100
MOST_CHARACTERS = 64 << 10
"""Of all texts and names together: a host that joins stands in the manifest, which is written anew whenever it changes."""
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
        It has more than `MOST_VALUES` values or `MOST_CHARACTERS`, nests deeper than `MOST_DEPTH`, or holds a number that
        JSON has not.
    """
    own = {key: value for key, value in told.items() if key not in KEPT_BY_THE_SERVER}
    read: dict[str, Any] = _Reader().read(own, 0)
    return read


class _Reader:
    """Reads one description, and counts what it takes."""

    def __init__(self) -> None:
        self._values_left = MOST_VALUES + 1
        self._characters_left = MOST_CHARACTERS

    def read(self, value: Any, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise HostFactsError(f"host: more than {MOST_VALUES} values")
        if depth > MOST_DEPTH:
            raise HostFactsError(f"host: nested deeper than {MOST_DEPTH}")
        if isinstance(value, dict):
            return {self._text(key, MOST_KEY): self.read(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.read(each, depth + 1) for each in value]
        return self._text(value, MOST_TEXT) if isinstance(value, str) else _number(value)

    def _text(self, text: str, most: int) -> str:
        shown = printable(text, most)
        self._characters_left -= len(shown)
        if self._characters_left < 0:
            raise HostFactsError(f"host: more than {MOST_CHARACTERS} characters")
        return shown


def _number(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if not isinstance(value, int | float) or not abs(value) <= LARGEST_INTEGER:  # NaN is not either
        raise HostFactsError(f"host: {printable(repr(value), 40)} is no number that a host has")
    return value
