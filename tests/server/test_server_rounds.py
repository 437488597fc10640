"""A scripted round: two clients whose clocks have nothing in common with the server's.

The server's zero is 1000. Client A's clock is 1,000,000 ns ahead of the server's (offset -1,000,000), known to 10 ns; client
B's is 500 ns behind (offset 500), known to 50 ns. All distances are so short that drift adds nothing.
"""

from itertools import pairwise
from typing import Any

import pytest

from fltestbed.measure.mapping import ClockSample
from fltestbed.measure.schema import PHASES
from fltestbed.server.host_log import HostLog
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Client, ReplyFacts, Task, WireBytes
from tests.server.recorded import Rows

A_OFFSET, B_OFFSET = -1_000_000, 500
Row = tuple[str, int, int, Any]


def sample(offset: int, half_width: int, at_server: int) -> ClockSample:
    sent = at_server - offset - half_width
    return ClockSample(sent, at_server, at_server, sent + 2 * half_width)


class Round:
    """A round log with two clients that are known to it, and the ServerApp's messages a and b on their way."""

    def __init__(self, message_type: str = "train") -> None:
        self.rows = Rows()
        self.log, self.hosts = RoundLog(self.rows, 1000), HostLog(self.rows, 1000)
        self.a, self.b = Client("pi-a", "5g", "wwan0"), Client("pi-b", "wifi", "wlan0")
        self.hosts.clock_sample(self.a, sample(A_OFFSET, 10, 1500), "clock")
        self.hosts.clock_sample(self.b, sample(B_OFFSET, 50, 1500), "clock")
        self.send(1, message_type, 2000, 2100)

    def send(self, round_: int, message_type: str, start: int, ready: int) -> None:
        """Send both messages."""
        self.log.sent(round_, message_type, [("a", 1, self.a), ("b", 2, self.b)], start, ready)

    def task(self, message_id: str) -> Task:
        """The task of a message that is under way."""
        task = self.log.task_of(message_id)
        assert task is not None
        return task

    def deliver(self, message_id: str, start: int) -> Task:
        """Hand a message to the kernel."""
        self.log.downlink_started(message_id, start, 5000)
        self.log.downlink_sent(self.task(message_id))
        return self.task(message_id)

    def answer_a(self, *, connect: int = 0) -> None:
        """Delivered at 2200, arrived at 2300, called 2320, trained to 2700, returned 2800, sent 2830, there at 3000."""
        task = self.deliver("a", 2200)
        spans = (("train", 2320 - A_OFFSET, 2700 - A_OFFSET, ""), ("evaluate", 2700 - A_OFFSET, 2800 - A_OFFSET, "test"))
        facts = ReplyFacts(
            2300 - A_OFFSET, 2320 - A_OFFSET, 2800 - A_OFFSET, spans, 2830 - A_OFFSET, connect
        )  # fmt: skip
        self.log.uplink_started(task)
        self.log.replied(task, facts, 3000, 4000, WireBytes(5500, 4400))
        self.log.held("a", 3050, None)

    def answer_b(self, arrived: int = 2450, arrivals_open: tuple[int, int] = (0, 0)) -> None:
        """Delivered at 2400; the whole call of the app from 2500 to 3400; sent 3450, there at 3600. `arrivals_open`: by
        how much downlink and uplink may have ended earlier.
        """
        task = self.deliver("b", 2400)
        spans = (("train", 2500 - B_OFFSET, 3400 - B_OFFSET, ""),)
        facts = ReplyFacts(
            arrived - B_OFFSET, 2500 - B_OFFSET, 3400 - B_OFFSET, spans, 3450 - B_OFFSET, 0,
            downlink_end_uncertainty_ns=arrivals_open[0],
        )  # fmt: skip
        task.uplink_end_uncertainty_ns = arrivals_open[1]
        self.log.uplink_started(task)
        self.log.replied(task, facts, 3600, 4000, WireBytes(None, None))
        self.log.held("b", 3700, None)

    def placed(self, client: str) -> list[Row]:
        """Rows of a client as phase, start and end from the run's zero, duration; in the order of time."""
        found = [
            (row["phase"], row["start_ns"], row["end_ns"], row["duration_s"])
            for row in self.rows.phases(client)
            if "start_ns" in row
        ]
        return sorted(found, key=lambda row: (row[1], row[2]))


@pytest.fixture
def round_() -> Round:
    return Round()


def test_a_round_is_partitioned_into_its_phases(round_: Round) -> None:
    """Each phase begins where the one before it ends, on the server's clock from the run's zero."""
    round_.answer_a()
    round_.answer_b()
    round_.log.gathered(3710)
    assert round_.placed("pi-a") == [
        ("configure", 1000, 1100, pytest.approx(100e-9)),
        ("queue", 1100, 1200, pytest.approx(100e-9)),
        ("downlink", 1200, 1300, pytest.approx(100e-9)),
        ("deserialize", 1300, 1320, pytest.approx(20e-9)),
        ("train", 1320, 1700, pytest.approx(380e-9)),
        ("evaluate", 1700, 1800, pytest.approx(100e-9)),
        ("serialize", 1800, 1830, pytest.approx(30e-9)),
        ("uplink", 1830, 2000, pytest.approx(170e-9)),
        ("collect", 2000, 2050, pytest.approx(50e-9)),
        ("wait", 2050, 2700, pytest.approx(650e-9)),
    ]
    for client in ("pi-a", "pi-b"):
        rows = round_.placed(client)
        assert all(first[2] == second[1] for first, second in pairwise(rows)), client
        assert (rows[0][1], rows[-1][2]) == (1000, 2700)
    assert round_.placed("pi-b")[-1] == ("wait", 2700, 2700, 0.0)  # the last of the round waits for nobody


def test_raw_stamps_are_of_the_host_that_took_them(round_: Round) -> None:
    """A downlink starts on the server's clock and ends on the client's, as it was read there."""
    round_.answer_a()
    (row,) = (row for row in round_.rows.phases("pi-a") if row["phase"] == "downlink")
    assert (row["start_host"], row["start_raw_ns"]) == ("server", 2200)
    assert (row["end_host"], row["end_raw_ns"]) == ("pi-a", 1_002_300)
    assert (row["payload_bytes"], row["wire_bytes"]) == (5000, 5500)
    assert (row["link"], row["message_id"], row["message_type"], row["attempt"]) == ("5g", "a", "train", 1)


def test_only_what_spans_two_hosts_is_uncertain_in_length(round_: Round) -> None:
    """B's transfers: 50 ns and 1 of drift, nothing in what one clock saw; B's own phases are placed to as much."""
    round_.answer_b()
    uncertainties = {
        row["phase"]: (row["duration_uncertainty_s"], row["placement_uncertainty_s"])
        for row in round_.rows.phases("pi-b")
    }  # fmt: skip
    assert uncertainties["downlink"] == uncertainties["uplink"] == (51e-9, 51e-9)
    assert uncertainties["train"] == (0, 51e-9)
    assert uncertainties["queue"] == (0, 0)


def test_what_a_stamp_leaves_open_is_added_to_what_the_clocks_do(round_: Round) -> None:
    """B's message may have come 7 ns earlier than it was read, its reply 120: both phases that meet there are as uncertain,
    and an uplink of 150 ns that is known to 171 is marked.
    """
    round_.answer_b(arrivals_open=(7, 120))
    found = {
        row["phase"]: (row["stamp_uncertainty_s"], row["duration_uncertainty_s"], row["uncertain"])
        for row in round_.rows.phases("pi-b")
    }  # fmt: skip
    assert found["downlink"] == (7e-9, 58e-9, True)
    assert found["deserialize"] == (7e-9, 7e-9, False)
    assert found["train"] == (0, 0, False)
    assert found["uplink"] == (120e-9, 171e-9, True)
    assert found["collect"] == (120e-9, 120e-9, True)


def test_a_negative_one_way_time_is_written_as_it_is(round_: Round) -> None:
    """B says that the last byte arrived 30 ns before the first had left: inside the 50 ns that are not known."""
    round_.answer_b(arrived=2370)
    (row,) = (row for row in round_.rows.phases("pi-b") if row["phase"] == "downlink")
    assert row["duration_s"] == pytest.approx(-30e-9)
    assert row["uncertain"] is True
    (uplink,) = (row for row in round_.rows.phases("pi-b") if row["phase"] == "uplink")
    assert uplink["uncertain"] is False  # 150 ns, known to 50


def test_a_new_connection_is_a_phase_of_its_own(round_: Round) -> None:
    """20 of the 30 ns between return and first byte went into connecting."""
    round_.answer_a(connect=20)
    rows = {row[0]: row[1:3] for row in round_.placed("pi-a")}
    assert rows["serialize"] == (1800, 1810)
    assert rows["connect"] == (1810, 1830)
    assert rows["uplink"] == (1830, 2000)


def test_without_a_clock_sample_only_raw_stamps_are_written() -> None:
    """Nothing is invented: start, end and duration stay empty, the raw stamps are kept."""
    rows = Rows()
    log = RoundLog(rows, 0)
    log.sent(1, "train", [("m", 1, Client("new", "5g"))], 10, 20)
    task = log.downlink_started("m", 30, 100)
    assert task is not None
    log.replied(task, ReplyFacts(5, 6, 7, (("train", 6, 7, ""),), 8, 0), 90, 100, WireBytes(1, 1))
    unplaced = [row for row in rows.phases("new") if row["phase"] in ("downlink", "train", "uplink")]
    assert [(row["start_raw_ns"], row["end_raw_ns"]) for row in unplaced] == [(30, 5), (6, 7), (8, 90)]
    assert all("duration_s" not in row and "start_ns" not in row for row in unplaced)


def test_a_reply_that_never_comes_times_out_in_its_phase(round_: Round) -> None:
    """A's is held, B is still training at the deadline: A waits until the deadline, B has one row that says so."""
    round_.answer_a()
    round_.deliver("b", 2400)
    round_.log.gathered(9000)
    (row,) = (row for row in round_.rows.phases("pi-b") if row["status"] != "ok")
    assert (row["phase"], row["status"], row["detail"]) == ("train", "timeout", "no reply before the deadline")
    assert "start_raw_ns" not in row
    assert round_.placed("pi-a")[-1][:3] == ("wait", 2050, 8000)
    assert round_.log.task_of("b") is None


@pytest.mark.parametrize(
    "message_type",
    [
        "train", "train.fine", "evaluate",
        pytest.param("query"),
    ],
)  # fmt: skip
def test_the_phase_of_a_timeout_is_one_of_the_dictionary(message_type: str) -> None:
    """Whatever the message's type, the row names a phase."""
    round_ = Round(message_type)
    round_.deliver("a", 2200)
    round_.log.gathered(9000)
    assert {row["phase"] for row in round_.rows.phases()} <= set(PHASES)


def test_an_error_reply_is_a_failure_of_what_the_app_did(round_: Round) -> None:
    """The app's own span is marked as failed with the reason; the transfers around it were fine."""
    task = round_.deliver("a", 2200)
    spans = (("train", 2320 - A_OFFSET, 2800 - A_OFFSET, "the whole call"),)
    facts = ReplyFacts(2300 - A_OFFSET, 2320 - A_OFFSET, 2800 - A_OFFSET, spans, 2830 - A_OFFSET, 0, "ValueError: no")
    round_.log.replied(task, facts, 3000, 400, WireBytes(1, 1))
    round_.log.held("a", 3050, "ValueError: no")
    failed = [(row["phase"], row["detail"]) for row in round_.rows.phases("pi-a") if row["status"] == "failed"]
    assert failed == [("train", "ValueError: no")]


def test_a_reply_that_is_refused_is_missing(round_: Round) -> None:
    """It was held like any other, and the round went on without it: named with its phase and why, and not counted."""
    round_.answer_a()
    round_.log.held("a", 3100, None)
    round_.log.refused("a", 3200, "its arrays are not NumPy's")
    round_.log.refused("unknown", 3200, "")
    (row,) = round_.rows["events.csv"]
    assert (row["event"], row["client"], row["phase"], row["symptom"], row["detail"]) == (
        "missing", "pi-a", "train", "error reply", "its arrays are not NumPy's",
    )  # fmt: skip
    round_.log.gathered(3300)
    assert (round_.log.rounds[1].replied, round_.log.rounds[1].selected) == (0, 2)


def test_an_error_that_flower_makes_fails_the_phase_under_way(round_: Round) -> None:
    """The node is gone: there was no reply to stamp, so one row without stamps names the phase and the reason."""
    round_.deliver("b", 2400)
    round_.log.held("b", 5000, "Node Unavailable")
    (row,) = (row for row in round_.rows.phases("pi-b") if row["status"] == "failed")
    assert (row["phase"], row["detail"]) == ("train", "Node Unavailable")
    assert "start_raw_ns" not in row


def test_a_stock_supernode_is_seen_from_the_server_alone() -> None:
    """Transfers by the server's stamps; what the node did in between is missing and says so."""
    rows = Rows()
    log = RoundLog(rows, 0)
    log.sent(1, "train", [("m", 1, Client("supernode-0", "unknown", is_ours=False))], 10, 20)
    task = log.downlink_started("m", 30, 100)
    assert task is not None
    log.replied_unseen(task, 700, 800, 90, 400)
    found = [(row["phase"], row["status"], row.get("start_raw_ns"), row.get("end_raw_ns")) for row in rows.phases()]
    assert found[2:] == [
        ("downlink", "ok", 30, 90),
        ("deserialize", "missing", None, None),
        ("train", "missing", None, None),
        ("serialize", "missing", None, None),
        ("uplink", "ok", 700, 800),
    ]
    assert all("stock SuperNode" in row["detail"] for row in rows.phases()[2:])


def test_a_message_that_is_sent_again_counts_its_attempts(round_: Round) -> None:
    """The queue ends with the first attempt; what lies between the attempts is a downlink that failed."""
    round_.log.downlink_started("a", 2150, 5000)
    round_.answer_a()
    queue = [row for row in round_.rows.phases("pi-a") if row["phase"] == "queue"]
    failed, downlink = (row for row in round_.rows.phases("pi-a") if row["phase"] == "downlink")
    assert (failed["attempt"], failed["status"], failed["start_ns"], failed["end_ns"]) == (1, "failed", 1150, 1200)
    assert [(row["start_raw_ns"], row["end_raw_ns"]) for row in queue] == [(2100, 2150)]
    assert (downlink["start_raw_ns"], downlink["attempt"]) == (2200, 2)


def aggregates(round_: Round) -> list[tuple[int, str, int, int, str]]:
    return [
        (row["round"], row["message_type"], row["start_raw_ns"], row["end_raw_ns"], row["detail"])
        for row in round_.rows.phases()
        if row["phase"] == "aggregate"
    ]


def test_aggregation_is_written_once(round_: Round) -> None:
    """A strategy calls aggregate_evaluate also when it sent nothing to evaluate: that is no second aggregation."""
    round_.answer_a()
    round_.answer_b()
    round_.log.gathered(3710)
    round_.log.step("aggregate_train", 1, 3720, 3900)
    round_.log.step("configure_evaluate", 1, 3900, 3910)
    round_.log.step("aggregate_evaluate", 1, 3910, 3920)
    round_.log.end(5000)
    assert aggregates(round_) == [(1, "train", 3700, 3900, "")]


def test_training_and_evaluation_are_aggregated_each(round_: Round) -> None:
    """Two batches of messages in one round: two rows, told apart by the message type."""
    round_.answer_a()
    round_.answer_b()
    round_.log.gathered(3710)
    round_.log.step("aggregate_train", 1, 3720, 3900)
    round_.log.step("configure_evaluate", 1, 3900, 3910)
    round_.send(1, "evaluate", 3905, 3950)
    round_.deliver("a", 4000)
    round_.deliver("b", 4000)
    round_.log.held("a", 4500, "gone")
    round_.log.held("b", 4600, "gone")
    round_.log.gathered(4610)
    round_.log.step("aggregate_evaluate", 1, 4620, 4700)
    round_.log.end(5000)
    assert aggregates(round_) == [(1, "train", 3700, 3900, ""), (1, "evaluate", 4600, 4700, "")]
    configure = [row["start_raw_ns"] for row in round_.rows.phases("pi-a") if row["phase"] == "configure"]
    assert configure == [2000, 3900]  # from the strategy's own stamp, where there is one


def test_an_app_without_a_strategy_aggregates_until_it_goes_on(round_: Round) -> None:
    """From the last reply to the next messages, and after the last round to the app's end."""
    round_.answer_a()
    round_.answer_b()
    round_.log.gathered(3710)
    round_.send(2, "train", 4200, 4300)
    round_.deliver("a", 4400)
    round_.deliver("b", 4400)
    round_.log.held("a", 4500, "gone")
    round_.log.held("b", 4600, "gone")
    round_.log.gathered(4610)
    round_.log.end(5000)
    assert aggregates(round_) == [
        (1, "train", 3700, 4200, "until the app sent its next messages"),
        (2, "train", 4600, 5000, "until the app ended"),
    ]


def test_server_evaluation_is_a_phase_of_the_server(round_: Round) -> None:
    """It has no client, and both stamps are the server's; round 0 is the model before the first round."""
    round_.log.step("server_evaluate", 0, 1200, 1900)
    (row,) = (row for row in round_.rows.phases() if row["phase"] == "server_evaluate")
    assert (row["round"], row["start_ns"], row["end_ns"], row["start_host"], row["end_host"]) == (
        0,
        200,
        900,
        "server",
        "server",
    )
    assert "client" not in row


def test_metrics_are_rows(round_: Round) -> None:
    """One a metric, with the time from the run's zero; the server's accuracy is the round's."""
    round_.log.metrics(1, "server", "", {"loss": 0.5, "accuracy": 0.9}, 2_000_001_000)
    round_.log.metrics(1, "client", "train", {"accuracy": 0.1}, 2_000_001_000, "pi-a")
    rows = round_.rows["metrics.csv"]
    assert [(row["client"], row["source"], row["metric"], row["value"]) for row in rows] == [
        ("", "server", "loss", 0.5), ("", "server", "accuracy", 0.9), ("pi-a", "client", "accuracy", 0.1),
    ]  # fmt: skip
    assert rows[0]["time_s"] == 2.0
    assert round_.log.rounds[1].accuracy == 0.9


def test_clock_samples_are_recorded_and_the_estimate_when_it_changes(round_: Round) -> None:
    """Every plausible sample is a row; clock.csv gets one when the best changes, an impossible sample neither."""
    before = (len(round_.rows["clock_samples.csv"]), len(round_.rows["clock.csv"]))
    round_.hosts.clock_sample(round_.a, sample(A_OFFSET, 5000, 3000), "push")
    round_.hosts.clock_sample(round_.a, ClockSample(10, 0, 100, 20), "push")
    round_.hosts.clock_sample(round_.a, sample(A_OFFSET, 3, 4000), "pull")
    assert before == (2, 2)
    assert [row["exchange"] for row in round_.rows["clock_samples.csv"][2:]] == ["push", "pull"]
    (estimate,) = round_.rows["clock.csv"][2:]
    assert (estimate["client"], estimate["interface"], estimate["half_width_ns"]) == ("pi-a", "wwan0", 4)
    assert (estimate["offset_ns"], estimate["client_raw_ns"]) == (A_OFFSET, 4000 - A_OFFSET + 3)


def test_the_estimate_of_each_interface_is_kept_and_the_narrowest_counts(round_: Round) -> None:
    """A quiet network beside the link: rows of clock.csv for both, and phases are placed by the better one."""
    round_.hosts.clock_sample(round_.b, sample(B_OFFSET, 3, 4000), "clock", "eth0")
    (row,) = (row for row in round_.rows["clock.csv"] if row["interface"] == "eth0")
    assert (row["client"], row["half_width_ns"]) == ("pi-b", 4)
    assert set(round_.b.paths) == {"wlan0", "eth0"}
    estimate = round_.b.mapping.at(4000 - B_OFFSET)
    assert estimate is not None
    assert estimate.half_width_ns <= 4


def test_stamps_that_cannot_be_cost_their_phases_and_one_message(round_: Round, caplog: pytest.LogCaptureFixture) -> None:
    """B says that it read its message an hour before it was sent: what its clock was needed for is missing, once said."""
    hour_ns = 3600 * 10**9
    task = round_.log.task_of("b")
    assert task is not None
    early = ReplyFacts(10 * hour_ns, 10 * hour_ns, 10 * hour_ns, (), 10 * hour_ns, 0)
    for _ in range(2):
        round_.log.replied(task, early, 2500, 10, WireBytes(None, None))
    rows = round_.rows.phases("pi-b")
    assert {row["phase"] for row in rows if row["status"] == "missing"} == {
        "downlink", "deserialize", "train", "serialize", "uplink",
    }  # fmt: skip
    assert [record.message.partition(":")[0] for record in caplog.records] == ["pi-b"]


def test_what_is_said_of_an_unknown_message_is_ignored(round_: Round) -> None:
    """A reply held, or a message delivered, that no round knows: nothing is written, nothing breaks."""
    before = len(round_.rows.phases())
    round_.log.held("nobody", 1, None)
    assert round_.log.downlink_started("nobody", 1, 1) is None
    assert len(round_.rows.phases()) == before


def test_messages_that_are_sent_in_parts_are_one_waiting(round_: Round) -> None:
    """An app that sends the second client's message later, before it has any reply, loses no row of the first."""
    log = RoundLog(round_.rows, 1000)
    log.sent(1, "query", [("c", 1, round_.a)], 4000, 4100)
    log.sent(1, "query", [("d", 2, round_.b)], 4200, 4300)
    log.held("c", 5000, None)
    log.held("d", 5100, None)
    log.gathered(5100)
    waits = {row["client"]: (row["start_ns"], row["end_ns"]) for row in round_.rows.phases() if row["phase"] == "wait"}
    assert waits == {"pi-a": (4000, 4000), "pi-b": (4100, 4100)}
