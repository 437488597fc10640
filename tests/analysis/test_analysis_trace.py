"""The trace: what the Trace Event Format asks for, and that it tells what the run's tables tell."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.load import Run
from analysis.trace import trace, write_trace
from fltestbed.cli.trace import trace as trace_command
from fltestbed.errors import RunFolderError

Event = dict[str, Any]


@pytest.fixture(scope="module")
def events(campaign: list[Run]) -> list[Event]:
    """Events of a real run over 5g."""
    found: list[Event] = trace(campaign[0])["traceEvents"]
    return found


def names(events: list[Event], kind: str) -> dict[tuple[int, int], str]:
    """Names of processes or threads by their numbers."""
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == kind}


def assert_that_slices_nest(events: list[Event]) -> None:
    """In each thread a slice ends before the next one begins, or encloses it."""
    threads: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    for slices in threads.values():
        open_ends: list[int] = []
        for event in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
            while open_ends and open_ends[-1] <= event["ts"]:
                open_ends.pop()
            assert not open_ends or event["ts"] + event["dur"] <= open_ends[-1]
            open_ends.append(event["ts"] + event["dur"])


def test_every_event_has_what_the_format_asks_for(events: list[Event]) -> None:
    """Name, phase, process, thread and time for all; a duration for X, numbers for C, a known name and argument for M."""
    wanted = {"process_name": "name", "thread_name": "name", "process_sort_index": "sort_index"}
    wanted |= {"thread_sort_index": "sort_index"}
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    for event in events:
        assert isinstance(event["name"], str)
        assert all(isinstance(event[key], int) for key in ("pid", "tid", "ts"))
        if event["ph"] == "X":
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
            assert "," not in event["cat"]
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, float) for value in event["args"].values())
        else:
            assert wanted[event["name"]] in event["args"]


def test_slices_of_a_thread_nest(events: list[Event]) -> None:
    """No two of them overlap, which readers of the format do not draw."""
    assert_that_slices_nest(events)


def test_each_host_is_a_process_and_each_phase_a_slice(events: list[Event], campaign: list[Run]) -> None:
    """Server and clients in natural order; as many slices of a phase as the run has rows with stamps, and three rounds."""
    hosts = {pid: name for (pid, _), name in names(events, "process_name").items()}
    assert hosts == {1: "server", 2: "client-0 (5g)", 3: "client-1 (5g)", 4: "client-2 (5g)"}
    timeline = campaign[0]["timeline"].dropna(subset=["start_ns", "end_ns"])
    slices = pd.Series([event["name"] for event in events if event.get("cat") == "phase"]).value_counts()
    assert slices.to_dict() == timeline["phase"].value_counts().to_dict()
    assert [event["name"] for event in events if event.get("cat") == "round"] == ["round 1", "round 2", "round 3"]


def test_a_slice_says_when_how_long_and_how_sure(events: list[Event], campaign: list[Run]) -> None:
    """Microseconds from the run's zero, on the server's clock, rounded down; exact seconds and uncertainties beside them."""
    timeline = campaign[0]["timeline"]
    row = timeline[(timeline["phase"] == "uplink") & (timeline["client"] == "client-1") & (timeline["round"] == 2)].iloc[0]
    (event,) = (event for event in events if (event["name"], event["pid"]) == ("uplink", 3) and event["args"]["round"] == 2)
    assert event["ts"] == row["start_ns"] // 1000
    assert abs(event["dur"] - row["duration_s"] * 1e6) < 2
    assert event["args"]["duration_s"] == row["duration_s"]
    assert event["args"]["duration_uncertainty_s"] == row["duration_uncertainty_s"] > 0
    assert event["args"]["payload_bytes"] == row["payload_bytes"]


def test_what_the_server_does_for_a_client_stands_on_the_server(events: list[Event]) -> None:
    """Waiting and collecting happen there, in the client's thread; transfers and training on the client."""
    threads = names(events, "thread_name")
    where = {(event["name"], threads[event["pid"], event["tid"]]) for event in events if event.get("cat") == "phase"}
    assert ("wait", "for client-2") in where
    assert ("collect", "for client-0") in where
    assert {thread for name, thread in where if name in {"downlink", "train", "uplink"}} == {"phases"}
    assert {thread for name, thread in where if name in {"aggregate", "server_evaluate"}} == {"rounds"}


def test_counters_carry_their_unit(events: list[Event], campaign: list[Run]) -> None:
    """One event a reading of a host, on its process."""
    system = campaign[0]["system"]
    cpu = [event for event in events if event["ph"] == "C" and event["name"] == "CPU [%, 100 a core]"]
    assert len(cpu) == system["cpu_percent"].notna().sum() > 5
    first = system.dropna(subset=["cpu_percent", "time_s"]).iloc[0]
    assert cpu[0]["args"] == {"CPU [%, 100 a core]": first["cpu_percent"]}
    assert cpu[0]["ts"] == round(first["time_s"] * 1e6)


def test_modems_of_a_gnbs_log_have_a_counter_each(campaign: list[Run]) -> None:
    """Of the server, under the identity that the gNB knows."""
    radio = pd.DataFrame(
        {"host": "server", "time_s": [1.5, 1.5], "ul_mcs": [9, 27], "rnti": ["4601", "2460"], "technology": "5g"}
    )
    run = replace(campaign[0], tables=campaign[0].tables | {"radio.csv": radio})
    found = [event for event in trace(run)["traceEvents"] if event["name"].startswith("uplink MCS")]
    assert [(event["name"], event["ts"], event["args"]) for event in found] == [
        ("uplink MCS, modem 4601", 1_500_000, {"uplink MCS": 9.0}),
        ("uplink MCS, modem 2460", 1_500_000, {"uplink MCS": 27.0}),
    ]


def test_signal_is_a_counter_where_there_is_a_radio(campaign: list[Run]) -> None:
    """Rows of radio.csv become counters of the client, in dBm."""
    radio = pd.DataFrame({"host": "client-2", "time_s": [1.5, 2.5], "rsrp_dbm": [-90.0, float("nan")], "technology": "5g"})
    run = replace(campaign[0], tables=campaign[0].tables | {"radio.csv": radio})
    found = [event for event in trace(run)["traceEvents"] if event["name"] == "RSRP [dBm]"]
    assert [(event["pid"], event["ts"], event["args"]) for event in found] == [(4, 1_500_000, {"RSRP [dBm]": -90.0})]


def test_a_negative_duration_is_an_instant_that_says_so(campaign: list[Run]) -> None:
    """A slice cannot end before it starts; the exact, negative duration is kept."""
    timeline = campaign[0]["timeline"].copy()
    place = timeline.index[timeline["phase"] == "uplink"][0]
    timeline.loc[place, "end_ns"] = timeline.loc[place, "start_ns"] - 300_000
    timeline.loc[place, "duration_s"] = -0.0003
    run = replace(campaign[0], tables=campaign[0].tables | {"timeline.csv": timeline})
    (event,) = (event for event in trace(run)["traceEvents"] if event["ph"] == "i")
    assert event["s"] == "t"
    assert event["args"]["duration_s"] == -0.0003
    assert "within the clocks' uncertainty" in event["args"]["note"]


def test_an_attempt_that_overlaps_another_stands_beside_it(campaign: list[Run]) -> None:
    """A second downlink that begins before the first has ended gets a thread of its own, with a name."""
    timeline = campaign[0]["timeline"]
    second = timeline[timeline["phase"] == "downlink"].head(1).assign(attempt=2)
    second = second.assign(start_ns=second["start_ns"] + 1_000_000, end_ns=second["end_ns"] + 1_000_000)
    tables = campaign[0].tables | {"timeline.csv": pd.concat([timeline, second], ignore_index=True)}
    events = trace(replace(campaign[0], tables=tables))["traceEvents"]
    assert_that_slices_nest(events)
    assert "at the same time" in names(events, "thread_name").values()


def test_command_writes_json_that_says_what_it_is_of(
    stored_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard JSON with the run, the link and the clock as metadata; the command tells how many events."""
    file = tmp_path / "trace.json"
    trace_command(stored_folders["stored-wifi-2"], out=file)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found["displayTimeUnit"] == "ms"
    assert found["otherData"]["run"] == "stored-wifi-2"
    assert "microseconds" in found["otherData"]["clock"]
    assert capsys.readouterr().out == f"{file}: {len(found['traceEvents'])} events\n"


def test_a_run_without_rows_is_an_empty_trace(runs: list[Run]) -> None:
    """A run that failed at once has a server and nothing on it."""
    run = replace(runs[0], tables={name: table.head(0) for name, table in runs[0].tables.items()})
    found = trace(run)["traceEvents"]
    assert {event["ph"] for event in found} == {"M"}
    assert list(names(found, "process_name").values()) == ["server"]


def test_a_file_that_cannot_be_written_is_a_clear_error(campaign: list[Run], tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(RunFolderError, match="trace cannot be written there"):
        write_trace(campaign[0], tmp_path / "no" / "trace.json")
