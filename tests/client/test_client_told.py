"""What a server says with its answers: taken where it can be, refused in one line where it cannot."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.client.told import MessageFacts, ReplyEnd, ServerStamps, read_told
from fltestbed.errors import ServerRefused
from fltestbed.flower.node_key import server_time_s

bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)
STAMPS = {"server_receive_raw_ns": 5, "server_send_raw_ns": 6}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def test_what_is_right_is_taken() -> None:
    """Every value in its place; what this client does not know is left out."""
    told = read_told(MessageFacts, STAMPS | {"round": 3, "message_type": "train", "measured": False, "more": [1]})
    assert (told.server_receive_raw_ns, told.server_send_raw_ns, told.round) == (5, 6, 3)
    assert (told.message_type, told.measured) == ("train", False)
    assert read_told(MessageFacts, STAMPS) == MessageFacts.model_validate(STAMPS)
    assert read_told(ReplyEnd, STAMPS | {"server_end_raw_ns": 7}).server_end_uncertainty_ns == 0


@pytest.mark.parametrize(
    ("kind", "change", "place"),
    [
        (ServerStamps, {"server_receive_raw_ns": "5"}, "server_receive_raw_ns"),
        (ServerStamps, {"server_receive_raw_ns": -1}, "server_receive_raw_ns"),
        (ServerStamps, {"server_send_raw_ns": 1 << 62}, "server_send_raw_ns"),
        (ServerStamps, {"server_send_raw_ns": 6.0}, "server_send_raw_ns"),
        (ServerStamps, {"server_send_raw_ns": [[[]]]}, "server_send_raw_ns"),
        (MessageFacts, {"round": 10**400}, "round"),
        (MessageFacts, {"message_type": "x" * 65}, "message_type"),
        (ReplyEnd, {}, "server_end_raw_ns"),
        (ReplyEnd, {"server_end_raw_ns": None}, "server_end_raw_ns"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: type[ServerStamps], change: dict[str, Any], place: str) -> None:
    """With the place, on one line."""
    with pytest.raises(
        ServerRefused, match=rf"the server's answer cannot be: {place}: .*; does it run the same fltestbed\?"
    ):
        read_told(kind, STAMPS | change)


@bounded
@given(st.dictionaries(st.sampled_from([*STAMPS, "round", "message_type", "measured", "server_end_raw_ns"]), anything))
def test_anything_is_taken_or_refused(told: dict[str, Any]) -> None:
    """Stamps are whole numbers that fit 62 bits, whatever was said."""
    for kind in (ServerStamps, MessageFacts, ReplyEnd):
        with contextlib.suppress(ServerRefused):
            taken = read_told(kind, STAMPS | told)
            assert all(type(stamp) is int and 0 <= stamp < 1 << 62 for name, stamp in taken if name.endswith("raw_ns"))


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 99 Nov 2026 10:00:06 GMT",
        "\x00",
    ],
)
def test_a_date_after_which_nothing_can_be_signed_is_refused(date: str) -> None:
    """No date, or one at the end of all dates: the client signs the time, and would stop with the first that is none."""
    with pytest.raises(ServerRefused, match="which is no date; is it a fltestbed server"):
        server_time_s(date)


def test_a_date_is_seconds_since_1970() -> None:
    """In GMT."""
    assert server_time_s("Thu, 01 Jan 1970 00:01:00 GMT") == 60.0
