"""What a client says and cannot be true: told once, left out, and its reply counts all the same."""

from typing import Any

import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.server.transfers import NEVER_CAME
from tests.server.lab import Lab, Running
from tests.server.pi import Pi, collect, instruct, message_in

READING = {
    "cpu_percent": 1.0, "process_cpu_percent": 1.0, "memory_used_bytes": 1, "process_memory_bytes": 1, "interface": "wwan0",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"called_raw_ns": -1},
        {"returned_raw_ns": 0},
        {"spans": "x"},
        {"downlink_end_raw_ns": None},
        {"spans": [{"phase": 1e30}]},
    ],
    ids=str,
)
def test_an_upload_with_impossible_facts_counts_without_them(
    running: Running, lab: Lab, pi: Pi, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The model is taken; what its client says is told once, with the client and the field, and its phases are missing."""
    pi.join()
    for _ in range(2):
        (message_id,) = instruct(running, lab, pi.node_id)
        pulled = pi.pull()
        assert pi.push(message_id, pi.facts(pulled) | change, pi.answer(message_in(pulled))).status == 200
        assert collect(running, lab, message_id).has_content()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("pi-0: ")
    assert warning.endswith("; such facts are left out, and the run goes on")
    rows = [row for row in lab.rows.phases("pi-0") if row["status"] == "missing"]
    assert [row["phase"] for row in rows] == ["downlink", "deserialize", "train", "serialize", "uplink"] * 2
    assert all(row["detail"].startswith("what the client says cannot be true: ") for row in rows)


def test_late_facts_that_cannot_be_are_told_once_and_left_out(
    running: Running, lab: Lab, pi: Pi, caplog: pytest.LogCaptureFixture
) -> None:
    """Garbage of one table beside a good sample: the request is answered, the good is taken, each place is named once."""
    now = SYSTEM_CLOCK.raw_ns()
    pi.join()
    good = {"exchange": "clock", "stamps": [now, now + 1000, now + 2000, now + 3000]}
    late: dict[str, Any] = {
        "clock_samples": [good, {"exchange": "clock", "stamps": [1, 2, 3, 1e30]}],
        "transfers": [{"message_id": 5}] * 3,
    }
    for _ in range(2):
        assert pi.pull(**late).status == 204
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2
    assert said[0].startswith("pi-0: clock_samples.stamps.3: input should be a valid integer")
    assert said[1].startswith("pi-0: transfers.message_id: input should be a valid string, not 5")
    assert len(lab.rows["clock_samples.csv"]) == 2
    assert lab.rows["transfers.csv"] == []


@pytest.mark.parametrize("raw_ns", [0, 2**61], ids=["long ago", "in a year to come"])
def test_stamps_of_another_year_reach_no_file(
    running: Running, lab: Lab, pi: Pi, raw_ns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the right order and within bounds, but not of the time in which they were told: samples, readings, transfers."""
    now = SYSTEM_CLOCK.raw_ns()
    pi.join(clock_samples=[{"exchange": "clock", "stamps": [now, now + 1000, now + 2000, now + 3000]}])
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    transfer = {
        "message_id": message_id, "direction": "downlink", "new_connection": False,
        "client_start_raw_ns": raw_ns, "client_end_raw_ns": raw_ns + 1,
    }  # fmt: skip
    late = {
        "clock_samples": [{"exchange": "clock", "stamps": [now, raw_ns, raw_ns, now + 3000]}],
        "system": [READING | {"raw_ns": raw_ns}], "transfers": [transfer],
    }  # fmt: skip
    assert pi.push(message_id, pi.facts(pulled) | late, pi.answer(message_in(pulled))).status == 200
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split("; ")[0] for text in said] == [
        "pi-0: the server's stamps of an exchange are not of the time of this run",
        "pi-0: the stamps of a transfer (downlink) are not of the time in which it was made",
        "pi-0: the stamp of a reading (system) is not of the time of this run",
    ]
    assert len(lab.rows["clock_samples.csv"]) == 1
    assert lab.rows["system.csv"] == lab.rows["transfers.csv"] == []
    running.call(lab.transfers.close)
    assert {row["detail"] for row in lab.rows["transfers.csv"]} == {NEVER_CAME}


def test_a_reply_that_took_longer_than_it_was_away_is_not_believed(running: Running, lab: Lab, pi: Pi) -> None:
    """Before the first clock sample too, when nothing says where the client's clock stands."""
    pi.join()
    (message_id,) = instruct(running, lab, pi.node_id)
    pulled = pi.pull()
    facts = pi.facts(pulled)
    early = {"downlink_end_raw_ns": 0, "called_raw_ns": 0}  # an hour of a host that was started an hour ago
    assert pi.push(message_id, facts | early | {"spans": []}, pi.answer(message_in(pulled))).status == 200
    assert {row["phase"] for row in lab.rows.phases("pi-0") if row["status"] == "missing"} >= {"downlink", "train", "uplink"}
