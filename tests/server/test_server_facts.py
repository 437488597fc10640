"""What a stranger says is checked before it is believed."""

import math
import re
from typing import Any

import pytest

from fltestbed.server.facts import FactsError, read_facts
from fltestbed.server.late_facts import read_late_facts
from fltestbed.server.marks import StepMark, read_marks

REPLY: dict[str, Any] = {
    "downlink_end_raw_ns": 100,
    "called_raw_ns": 200,
    "returned_raw_ns": 500,
    "send_raw_ns": 600,
    "connect_ns": 50,
    "spans": [{"phase": "train", "start_raw_ns": 210, "end_raw_ns": 400, "detail": ""}],
}
TRANSFER: dict[str, Any] = {
    "message_id": "m", "direction": "uplink", "client_start_raw_ns": 1, "client_end_raw_ns": 2,
    "client_response_raw_ns": 3, "wire_up_bytes": 10, "wire_down_bytes": 20, "new_connection": False, "connect_s": None,
    "tcp": {
        "rtt_s": 0.1, "rtt_variance_s": 0.01, "min_rtt_s": 0.1, "retransmissions": 0, "congestion_window_segments": 10,
        "delivery_rate_bps": 1000, "idle_s": 0.0, "congestion_control": "cubic",
    },
}  # fmt: skip
IMPOSSIBLE = [-1, 1.5, 100.0, "100", True, None, 2**62, 2**63, 10**30, math.nan, [], {}]


def span(**change: Any) -> dict[str, Any]:
    return REPLY | {"spans": [REPLY["spans"][0] | change]}


def test_good_facts_are_taken_as_they_are() -> None:
    """Every stamp in its place; what the server does not know is ignored."""
    facts = read_facts(REPLY | {"colour": "blue"})
    assert (facts.downlink_end_ns, facts.called_ns, facts.returned_ns) == (100, 200, 500)
    assert (facts.send_ns, facts.connect_ns) == (600, 50)
    assert facts.spans == (("train", 210, 400, ""),)


def test_stamps_may_be_equal() -> None:
    """A coarse clock gives the same value twice."""
    stamps = dict.fromkeys(("downlink_end_raw_ns", "called_raw_ns", "returned_raw_ns", "send_raw_ns"), 7)
    assert read_facts(stamps).spans == ()


@pytest.mark.parametrize("value", [*IMPOSSIBLE, 3600 * 10**9 + 1], ids=repr)
def test_what_is_left_open_of_a_stamp_is_an_hour_at_most(value: Any) -> None:
    """From nothing, as with a client that says nothing of it, to the longest that an answer may take."""
    for good in (0, 1, 3600 * 10**9):
        assert read_facts(REPLY | {"downlink_end_uncertainty_ns": good}).downlink_end_uncertainty_ns == good
    assert read_facts(REPLY).downlink_end_uncertainty_ns == 0
    with pytest.raises(FactsError, match=r"^downlink_end_uncertainty_ns: "):
        read_facts(REPLY | {"downlink_end_uncertainty_ns": value})


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("place", ["downlink_end_raw_ns", "called_raw_ns", "returned_raw_ns", "send_raw_ns", "connect_ns"])
def test_a_stamp_that_cannot_be_is_refused_by_name(place: str, value: Any) -> None:
    """Negative, fractional, text, truth, beyond 2**62: the message begins with the place."""
    with pytest.raises(FactsError, match=f"^{place}: "):
        read_facts(REPLY | {place: value})


@pytest.mark.parametrize("place", ["downlink_end_raw_ns", "called_raw_ns", "returned_raw_ns", "send_raw_ns"])
def test_a_stamp_that_is_missing_is_named(place: str) -> None:
    """All but the time to connect are required."""
    with pytest.raises(FactsError, match=f"^{place}: field required"):
        read_facts({key: value for key, value in REPLY.items() if key != place})


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
def test_a_spans_stamp_that_cannot_be_is_refused_by_name(value: Any) -> None:
    """The place includes the number of the span."""
    with pytest.raises(FactsError, match=r"^spans\.0\.start_raw_ns: "):
        read_facts(span(start_raw_ns=value))


@pytest.mark.parametrize(
    "change",
    [
        {"downlink_end_raw_ns": 201},
        {"called_raw_ns": 501},
        {"returned_raw_ns": 551},  # after the connecting began
        {"send_raw_ns": 549},
        {"connect_ns": 101},
    ],
    ids=str,
)
def test_stamps_out_of_order_are_refused(change: dict[str, int]) -> None:
    """Arrived, called, returned, connecting, sent: in this order or not at all."""
    with pytest.raises(FactsError, match="not in the order in which things happen"):
        read_facts(REPLY | {"spans": []} | change)


@pytest.mark.parametrize(
    "change", [{"start_raw_ns": 199}, {"end_raw_ns": 501}, {"start_raw_ns": 401}, {"end_raw_ns": 209}], ids=str
)
def test_a_span_outside_of_the_call_is_refused(change: dict[str, int]) -> None:
    """An app cannot have trained before it was called, after it returned, or backwards."""
    with pytest.raises(FactsError, match="not in the order"):
        read_facts(span(**change))


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        (span(phase="uplink"), r"spans\.0\.phase"),
        (span(phase=None), r"spans\.0\.phase"),
        (span(detail="x" * 301), r"spans\.0\.detail"),
        (span(detail=1), r"spans\.0\.detail"),
        (span(detail="\ud800"), r"spans\.0\.detail"),
        (REPLY | {"spans": REPLY["spans"] * 101}, "spans"),
        (REPLY | {"spans": "train"}, "spans"),
        (REPLY | {"spans": [1]}, r"spans\.0"),
    ],
    ids=["phase", "no-phase", "long", "number", "surrogate", "too-many", "text", "not-a-span"],
)
def test_what_is_no_span_is_refused_by_name(facts: dict[str, Any], place: str) -> None:
    """Names that are not known, texts too long or not text, too many of them."""
    with pytest.raises(FactsError, match=f"^{place}: "):
        read_facts(facts)


def test_late_facts_are_optional() -> None:
    """A request without them has none."""
    late = read_late_facts({"holds": "m"})
    assert (late.transfers, late.clock_samples) == ((), [])


def test_late_facts_are_taken_as_they_are() -> None:
    """Four stamps in their order with the kind of exchange, and the client's part of a transfer."""
    late = read_late_facts({"transfers": [TRANSFER], "clock_samples": [{"exchange": "pull", "stamps": [1, 2, 3, 4]}]})
    ((sample, exchange, interface),) = late.clock_samples
    assert interface is None
    assert (sample.client_send_raw_ns, sample.client_receive_raw_ns, exchange) == (1, 4, "pull")
    (transfer,) = late.transfers
    assert transfer.tcp is not None
    assert (transfer.wire_up_bytes, transfer.tcp.congestion_control) == (10, "cubic")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"client_start_raw_ns": -1}, "client_start_raw_ns"),
        ({"client_end_raw_ns": 1.5}, "client_end_raw_ns"),
        ({"direction": "sideways"}, "direction"),
        ({"message_id": "m" * 81}, "message_id"),
        ({"wire_up_bytes": -5}, "wire_up_bytes"),
        ({"wire_down_bytes": 2**48}, "wire_down_bytes"),
        ({"connect_s": math.inf}, "connect_s"),
        ({"connect_s": math.nan}, "connect_s"),
        ({"new_connection": "perhaps"}, "new_connection"),
        ({"tcp": TRANSFER["tcp"] | {"rtt_s": -0.1}}, r"tcp\.rtt_s"),
        ({"tcp": TRANSFER["tcp"] | {"rtt_s": 1e11}}, r"tcp\.rtt_s"),
        ({"tcp": TRANSFER["tcp"] | {"congestion_control": "c" * 65}}, r"tcp\.congestion_control"),
        ({"tcp": {}}, r"tcp\.rtt_s"),
    ],
    ids=str,
)
def test_a_transfer_that_cannot_be_is_refused_by_name(change: dict[str, Any], place: str) -> None:
    """The row is left out, with the place of its first problem; the others are taken."""
    late = read_late_facts({"transfers": [TRANSFER, TRANSFER | change]})
    assert len(late.transfers) == 1
    (problem,) = late.problems
    assert re.match(rf"transfers\.{place}: ", problem)


@pytest.mark.parametrize("stamps", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], [1, 2, 3, -4], [1, 2, 3, 2**62], 4, None])
def test_a_clock_sample_has_four_stamps(stamps: Any) -> None:
    """Neither three nor five, and each of them a stamp."""
    late = read_late_facts({"clock_samples": [{"exchange": "clock", "stamps": stamps}]})
    assert late.clock_samples == []
    (problem,) = late.problems
    assert problem.startswith("clock_samples.stamps")


def test_a_flood_of_late_facts_is_cut() -> None:
    """At most 64 transfers and 256 samples in a request."""
    sample = {"exchange": "clock", "stamps": [1, 2, 3, 4]}
    late = read_late_facts({"transfers": [TRANSFER] * 65, "clock_samples": [sample] * 257})
    assert (len(late.transfers), len(late.clock_samples)) == (64, 256)
    assert set(late.problems) == {
        "transfers: 65 rows in one request; at most 64 are allowed",
        "clock_samples: 257 rows in one request; at most 256 are allowed",
    }


@pytest.mark.parametrize("told", [{"transfers": 7}, {"probes": [1]}, {"system": {}}, {"stamp_error": "late"}], ids=str)
def test_what_is_no_list_or_table_is_left_out(told: dict[str, Any]) -> None:
    """By its name; the rest of the request counts."""
    late = read_late_facts(told | {"radio": [READINGS["radio"]]})
    assert len(late.radio) == 1
    (problem,) = late.problems
    assert problem.startswith(f"{next(iter(told))}: ")


def test_a_problem_is_told_once_a_place() -> None:
    """However many rows have it; the value is shown where it is short."""
    late = read_late_facts({"transfers": [TRANSFER | {"wire_up_bytes": -5}] * 3 + [TRANSFER | {"message_id": "m" * 81}]})
    assert late.problems == (
        "transfers.wire_up_bytes: input should be greater than or equal to 0, not -5",
        "transfers.message_id: string should have at most 80 characters",
    )


def test_a_late_reply_out_of_order_is_left_out() -> None:
    """As one that comes with its message would be."""
    late = read_late_facts({"replies": [REPLY | {"message_id": "m", "send_raw_ns": 0}, REPLY | {"message_id": "n"}]})
    assert list(late.replies) == ["n"]
    assert late.problems == ("replies: the client's stamps are not in the order in which things happen",)


READINGS = {
    "system": {
        "raw_ns": 1, "cpu_percent": 1.0, "process_cpu_percent": 1.0, "memory_used_bytes": 1, "process_memory_bytes": 1,
        "interface": "wwan0", "wall_offset_s": -0.5,
    },
    "radio": {"raw_ns": 1, "interface": "wwan0", "technology": "5g", "rsrp_dbm": -87.0, "channel": 627360},
}  # fmt: skip


def test_readings_and_what_probes_say_are_taken_as_they_are() -> None:
    """What a client does not know is empty in a row, and left out of the manifest."""
    told = {"modem": {"on": False, "reason": "no modem"}, "time_sync": {"on": True, "start": [{"daemon": "chrony"}]}}
    late = read_late_facts({"probes": told} | {table: [row] for table, row in READINGS.items()})
    assert late.system[0].model_dump().items() >= READINGS["system"].items()
    assert late.radio[0].model_dump().items() >= READINGS["radio"].items()
    assert late.radio[0].sinr_db is None
    assert late.probes == told


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("system", {"wall_offset_s": math.nan}), ("system", {"probes_cpu_s": -1.0}), ("system", {"time_sync": "x" * 65}),
        ("radio", {"technology": "6g"}), ("radio", {"rsrp_dbm": -math.inf}), ("radio", {"channel": -1}),
        ("radio", {"rsrp_dbm": 1e9}), ("system", {"cpu_percent": 1e30}), ("system", {"sched_delay_s": 1e8}),
        ("radio", {"cell": "c" * 65}), ("radio", {"raw_ns": None}), ("radio", {"power_save": "perhaps"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_reading_that_cannot_be_is_refused_by_name(table: str, change: dict[str, Any]) -> None:
    """With its table and its column."""
    (problem,) = read_late_facts({table: [READINGS[table] | change]}).problems
    assert problem.startswith(f"{table}.{next(iter(change))}: ")


@pytest.mark.parametrize(
    "told",
    [{"x" * 65: {"on": True}}, {"modem": {}}, {"modem": {"on": True, "reason": "r" * 301}},
     {"modem": {"on": False, "seen": ["x"] * 17}},
             {str(number): {"on": True} for number in range(17)}],
    ids=["name", "empty", "long", "many", "flood"],
)  # fmt: skip
def test_what_probes_say_is_bounded(told: dict[str, Any]) -> None:
    """It goes into the manifest, so neither its names nor its texts nor their number are the client's to choose."""
    late = read_late_facts({"probes": told})
    assert late.probes == {}
    (problem,) = late.problems
    assert problem.startswith("probes")


def test_marks_come_in_the_order_in_which_they_were_made() -> None:
    """Each kind is told apart by its name."""
    step = {"kind": "step", "name": "aggregate_train", "round": 1, "start_raw_ns": 1, "end_raw_ns": 2}
    marks = read_marks({"marks": [step, {"kind": "gathered", "raw_ns": 3}, {"kind": "end", "raw_ns": 4}]})
    assert [mark.kind for mark in marks] == ["step", "gathered", "end"]
    assert isinstance(marks[0], StepMark)
    assert read_marks({}) == []


@pytest.mark.parametrize("marks", [[{"kind": "party"}], [{}], [1], "step", [{"kind": "gathered", "raw_ns": -1}]], ids=str)
def test_marks_that_are_none_are_refused(marks: Any) -> None:
    """The ServerApp's process is checked as well."""
    with pytest.raises(FactsError):
        read_marks({"marks": marks})


def test_keys_that_a_client_chose_are_shown_printable_and_short() -> None:
    """They stand in a line on the server's terminal."""
    bytes_of = {"sent_bytes": "x", "received_bytes": 1}
    for key in ("\x1b[2J\nall is well", "x" * 64):
        path = {"sent_bytes": 1, "received_bytes": 1, "mismatch": None, "interfaces": {key: bytes_of}}
        (problem,) = read_late_facts({"path": path}).problems
        assert problem.isprintable()
        assert len(problem) < 250
