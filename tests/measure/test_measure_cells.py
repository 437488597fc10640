"""What stands in a cell when somebody else chose the text: never a formula, never a second line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltestbed.measure.recorder import FORMULA_BEGINS, Recorder, cell, line
from fltestbed.server.host_facts import MOST_CHARACTERS, MOST_DEPTH, MOST_TEXT, MOST_VALUES, HostFactsError, read_host


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ('=HYPERLINK("http://x","y")', "'=HYPERLINK(\"http://x\",\"y\")"), ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"), ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'=1"), ("\r\n=1", "'=1"), ("a\nb,c", "a b,c"), ("plain = text", "plain = text"), ("", ""),
        ("\x1b[1m", "[1m"), (" =1", "' =1"), ("\uff1d1+1", "'\uff1d1+1"),
    ],
)  # fmt: skip
def test_text_is_never_a_formula(text: str, stands: str) -> None:
    """An apostrophe goes before what a spreadsheet would compute; spaces, tabs and line ends do not hide it."""
    assert cell(text) == stands


def test_numbers_stay_numbers() -> None:
    """A negative one begins with a minus and is no formula."""
    assert [cell(value) for value in (-1, -0.5, 1e30, True, None, float("nan"))] == ["-1", "-0.5", "1e+30", "1", "", "nan"]


@given(st.lists(st.text() | st.integers() | st.floats() | st.none(), min_size=1, max_size=6))
def test_any_row_is_one_line_with_as_many_cells(values: list[Any]) -> None:
    """Read back by Python's own reader; no cell begins as a formula does unless it is a number."""
    written = line([cell(value) for value in values])
    assert written.count(b"\n") == 1
    (row,) = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert len(row) == len(values) or values == [""] or all(cell(value) == "" for value in values)
    for value, stands in zip(values, row, strict=False):
        assert not (isinstance(value, str) and stands.startswith(FORMULA_BEGINS))


def test_a_hostile_metric_is_one_row(tmp_path: Path) -> None:
    """Through the recorder into the file: one line more, text neutralised, number as it is."""
    with Recorder(tmp_path, "run") as recorder:
        recorder.write("metrics.csv", {"metric": "=1+1\nround,99", "value": -3.5, "client": "pi"})
    header, row = list(csv.reader(io.StringIO((tmp_path / "metrics.csv").read_text(), newline="")))
    assert dict(zip(header, row, strict=True)).items() >= {"metric": "'=1+1 round,99", "value": "-3.5"}.items()


def test_a_host_says_what_it_is_and_no_more() -> None:
    """Plain data pass; what the server says of a host by itself is not the host's to say."""
    told = {
        "model": "Pi",
        "cores": 4,
        "load": 0.5,
        "tls": None,
        "interfaces": {"eth0": {"mtu": 1500, "up": True}},
        "list": [1, "a"],
    }
    assert read_host(told | {"probes": 5, "stamp_error": []}) == told


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"a": float("nan")}, "nan is no number"),
        ({"a": {"b": [float("inf")]}}, "inf is no number"),
        ({"a": 10**30}, "is no number"),
        ({"a": -(10**400)}, "is no number"),
        ({"a": [0] * (MOST_VALUES + 1)}, f"more than {MOST_VALUES} values"),
        ({"a": ["x" * MOST_TEXT] * 200}, f"more than {MOST_CHARACTERS} characters"),
        ({f"{number:0100}": None for number in range(1000)}, f"more than {MOST_CHARACTERS} characters"),
        ({"a": json.loads("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1))}, f"deeper than {MOST_DEPTH}"),
    ],
    ids=["nan", "inf", "1e30", "1e400", "many", "texts", "names", "deep"],
)
def test_a_host_that_cannot_be_is_refused(told: dict[str, Any], says: str) -> None:
    """By name."""
    with pytest.raises(HostFactsError, match=says):
        read_host(told)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_any_host_is_plain_and_printable_or_refused(told: dict[str, Any]) -> None:
    """What is taken is JSON in every reader's eyes, with short texts on one line."""
    try:
        taken = read_host(told)
    except HostFactsError:
        return
    again = json.loads(json.dumps(taken, allow_nan=False))
    assert again == taken

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for each in value.values() for text in texts(each))]
        if isinstance(value, list):
            return [text for each in value for text in texts(each)]
        return [value] if isinstance(value, str) else []

    assert all(len(text) <= MOST_TEXT and len(text.splitlines()) <= 1 for text in texts(taken))
