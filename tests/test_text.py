"""Text that came from elsewhere, on one line and without orders to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltestbed.text import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain: text, 5 %", "plain: text, 5 %"),
        ("two\nlines\r\nand\ttabs", "two lines and tabs"),
        ("\x1b[2J\x1b]0;title\x07red", "[2J ]0;title red"),
        ("right\u202eto left\u2028line", "right to left line"),
        ("\ud800alone", "alone"),
        ("Grüße, 東京", "Grüße, 東京"),
    ],
)
def test_what_a_terminal_would_obey_becomes_a_space(text: str, expected: str) -> None:
    """Line ends, escapes, changes of direction and halves of letters; what people write stays."""
    assert printable(text) == expected


@given(st.text(), st.integers(4, 60))
def test_any_text_becomes_one_bounded_line(text: str, most: int) -> None:
    """Printable, encodable, no longer than asked, and not changed again."""
    made = printable(text, most)
    assert len(made) <= most
    assert len(made.splitlines()) <= 1
    made.encode()
    assert printable(made, most) == made
