"""In what two resolved configurations differ."""

from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One key, dotted, and its two values."""

    key: str
    there: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.there} there, {self.now} now"


def differences(there: Any, now: Any, key: str = "") -> list[Difference]:
    """Keys of which both know and whose values differ. A key that either does not know is no difference."""
    if isinstance(there, dict) and isinstance(now, dict):
        inside = (differences(there[name], now[name], f"{key}.{name}".lstrip(".")) for name in now if name in there)
        return [difference for found in inside for difference in found]
    return [] if there == now else [Difference(key, there, now)]
