"""A log that a gNB writes: where its rows stand in time, and what can happen to a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.gnb_log import BEGINNING_BYTES, LONGEST_LINE_BYTES, MOST_BYTES, GnbLogProbe
from tests.measure.probes.test_probes_gnb_report import DOCUMENTED, FIGURES, SRSRAN
from tests.measure.probes.test_probes_host import Host

REPORT = DOCUMENTED + "\n"
RAW_NS = 5_000_000_000_000
WALL_NS = 1_785_681_620_000_000_000
"""2026-08-02T14:40:20 UTC."""
MONOTONIC_NS = 900_000_000_000


class Written:
    """A log, the probe that follows it, and clocks that stand still."""

    def __init__(self, path: Path, text: str = "") -> None:
        self.path = path
        path.write_text(text)
        self.later_ns = 0
        clock = Clock(lambda: RAW_NS + self.later_ns, lambda: WALL_NS + self.later_ns)
        self.probe = GnbLogProbe(path, 1.0, clock, lambda: MONOTONIC_NS + self.later_ns)
        self.facts = self.probe.open()

    def add(self, text: str) -> list[dict[str, Any]]:
        """What a reading after some more text gives, columns without a value left out."""
        with self.path.open("a") as file:
            file.write(text)
        return self.read()

    def read(self) -> list[dict[str, Any]]:
        """What a reading gives now."""
        return [{name: value for name, value in row.items() if value is not None} for row in self.probe.read()]


Follow = Callable[..., Written]


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    """Begins to follow a log that has some text already."""
    followed: list[Written] = []

    def begin(text: str = "") -> Written:
        followed.append(Written(tmp_path / "gnb.log", text))
        return followed[-1]

    yield begin
    for written in followed:
        written.probe.close()


@pytest.fixture
def log(follow: Follow) -> Written:
    """An empty log."""
    return follow()


def test_without_stamps_a_row_has_the_time_of_its_reading(log: Written) -> None:
    """And the manifest says so."""
    assert log.add(REPORT) == [{"raw_ns": RAW_NS} | FIGURES]
    assert log.probe.close() == {"stamped_by": {"reading": 1}}


@pytest.mark.parametrize(
    ("text", "age_ns", "source"),
    [
        (REPORT.replace("[NR", "1785681619.250000 [NR", 1), 750_000_000, "wall"),
        (REPORT.replace("[NR", "899.400000 [NR", 1), 600_000_000, "monotonic"),
        ("\n".join(SRSRAN) + "\n", 978_158_000, "wall"),
    ],
)
def test_a_stamp_of_the_hosts_clocks_is_brought_to_the_raw_one(log: Written, text: str, age_ns: int, source: str) -> None:
    """A report that was written so long before the reading stands as long before it on the raw clock."""
    (row,) = log.add(text)
    assert row["raw_ns"] == RAW_NS - age_ns
    assert log.probe.close()["stamped_by"] == {source: 1}


@pytest.mark.parametrize("stamp", ["1785681621.000000", "1785674420.000000", "961.000000"])
def test_a_stamp_of_another_clock_is_not_believed(log: Written, stamp: str) -> None:
    """A second ahead, two hours behind (another time zone), or of another boot: the reading's time, and it is told."""
    (row,) = log.add(REPORT.replace("[NR", f"{stamp} [NR", 1))
    assert row["raw_ns"] == RAW_NS
    (told,) = log.probe.close()["stamped_by"]
    assert told in {"reading, wall stamp not of this host's clock", "reading, monotonic stamp not of this host's clock"}


def test_what_came_in_a_long_pause_stands_where_it_was_written(log: Written) -> None:
    """Rounds that are not measured have no readings; two hours are not another time zone then."""
    log.later_ns = 7_200_000_000_000
    (row,) = log.add(REPORT.replace("[NR", "1785681621.000000 [NR", 1))  # a second after the first reading could have been
    assert row["raw_ns"] == RAW_NS + 1_000_000_000
    assert log.probe.close()["stamped_by"] == {"wall": 1}


def test_what_was_there_before_is_not_of_this_run(follow: Follow) -> None:
    """But for the TDD pattern, which a gNB says once; counters count from the run's first report."""
    slots = "".join(f"TDD period configuration: slot {k} is {kind}LINK\n" for k, kind in enumerate(["DOWN", "DOWN", "UP"]))
    log = follow(slots + REPORT)
    assert log.facts == {"reads": str(log.path), "tdd_pattern": "DDU"}
    assert log.read() == []
    (row,) = log.add(REPORT)
    assert row["tdd_pattern"] == "DDU"
    assert "ul_retransmissions" not in row


def test_a_line_that_is_not_whole_waits_for_its_end(log: Written) -> None:
    """However the report is cut, there is one row, and it is whole."""
    pieces = (REPORT[cut : cut + 97] for cut in range(0, len(REPORT), 97))
    assert [row for piece in pieces for row in log.add(piece)] == [{"raw_ns": RAW_NS} | FIGURES]


def test_a_line_that_began_before_the_run_is_left_out(follow: Follow) -> None:
    """Its rest is no line."""
    log = follow("UE 2460: dlsch_")
    assert log.add("rounds 1/2/3/4\n" + REPORT) == [{"raw_ns": RAW_NS} | FIGURES]


def test_a_log_that_is_moved_away_is_followed_to_the_new_one(log: Written) -> None:
    """What was still written to the old one counts as well."""
    assert len(log.add(REPORT)) == 1
    with log.path.open("a") as old:
        log.path.rename(log.path.with_suffix(".1"))
        old.write(REPORT)
        old.flush()
        log.path.write_text(REPORT * 2)
        assert len(log.read()) == 3
    assert len(log.add(REPORT)) == 1


def test_a_log_that_is_emptied_is_read_from_its_beginning(log: Written) -> None:
    """As `copytruncate` and a gNB that is started again leave it."""
    assert len(log.add(REPORT * 3)) == 3
    log.path.write_text(REPORT)
    assert len(log.read()) == 1


def test_a_log_that_is_gone_is_told_after_its_last_row(log: Written) -> None:
    """And is read again when there is one."""
    with log.path.open("a") as old:
        old.write(REPORT)
    log.path.unlink()
    assert len(log.read()) == 1
    with pytest.raises(TestbedError, match="cannot be read any more: No such file"):
        log.read()
    log.path.write_text(REPORT)
    assert len(log.read()) == 1


def test_a_huge_line_is_left_out(log: Written) -> None:
    """To its end, whatever it holds, in the memory of one reading; what was left out is counted."""
    huge = "UE RNTI 2460 in-sync " * (LONGEST_LINE_BYTES // 10)
    assert log.add(huge) == []
    assert log.add(huge) == []
    assert log.add("\n" + REPORT) == [{"raw_ns": RAW_NS} | FIGURES]
    assert log.probe.close()["skipped_bytes"] == 2 * len(huge) + 1


def test_a_log_that_grows_too_fast_is_followed_at_its_end(log: Written) -> None:
    """Of what came since the last reading the end is read."""
    noise = "[PHY]   something\n" * (2 * MOST_BYTES // 18)
    assert len(log.add(REPORT + noise + REPORT)) == 1
    assert log.probe.close()["skipped_bytes"] > MOST_BYTES


def test_of_a_large_log_the_beginning_alone_is_read(follow: Follow) -> None:
    """A gNB that has run for days starts no run late."""
    log = follow("x\n" * BEGINNING_BYTES + "TDD period configuration: slot 0 is UPLINK\n")
    assert "tdd_pattern" not in log.facts


def test_bytes_that_are_no_text_do_no_harm(log: Written) -> None:
    """They are a line like others."""
    with log.path.open("ab") as file:
        file.write(b"\xff\xfe\x00\x80\n" + REPORT.encode())
    assert len(log.read()) == 1


def test_without_a_log_the_probe_is_off(tmp_path: Path) -> None:
    """The reason says what to do."""
    with pytest.raises(HostError, match="there is no such file; start the gNB before the server"):
        GnbLogProbe(tmp_path / "gnb.log", 1.0, Clock()).open()
    with pytest.raises(HostError, match="not a file"):
        GnbLogProbe(tmp_path, 1.0, Clock()).open()


def test_the_servers_probe_process_reads_it(tmp_path: Path) -> None:
    """As a row of radio.csv on the raw clock, with the facts for the manifest; a client's leaves it alone."""
    path = tmp_path / "gnb.log"
    path.touch()
    server, client = Host("all", radio=False, gnb_log=str(path)), Host("lo", system=True, gnb_log=str(path))
    for host in (server, client):
        host.probes.start()
    server.wait_for(lambda: "gnb_log" in server.facts)
    with path.open("a") as file:
        file.write(REPORT)
    server.wait_for(lambda: len(server.rows) == 1)
    client.wait_for(lambda: len(client.rows) >= 1)
    for host in (server, client):
        host.probes.stop()
    ((table, row),) = server.rows
    assert table == "radio"
    assert {name: value for name, value in row.items() if name in FIGURES} == FIGURES
    assert (server.facts["gnb_log"]["on"], server.facts["gnb_log"]["stamped_by"]) == (True, {"reading": 1})
    assert "gnb_log" not in client.facts
    assert {table for table, _ in client.rows} == {"system"}
