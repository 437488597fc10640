"""Text that came from elsewhere, made fit for a terminal, a log and a cell."""

import re
import unicodedata

_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: control (line ends and escapes among them), format (which turns the direction), surrogates."""
_SPACES = re.compile(r" {2,}")
_ELLIPSIS = "..."


def printable(text: str, most: int | None = None) -> str:
    """Return the text on one line, without what a terminal would obey; of `most` characters if it is longer."""
    if not text.isascii() or not text.isprintable():
        text = "".join(" " if unicodedata.category(letter) in _UNPRINTABLE else letter for letter in text)
        text = _SPACES.sub(" ", text).strip()
    return text if most is None or len(text) <= most else text[: most - len(_ELLIPSIS)] + _ELLIPSIS
