"""How a round and memory grow: hand-computed bars, costs, waiting bytes and shared pages."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fltestbed.bench.footprint import READINGS_PER_LOOK, Footprint, Watch, discounts, shared_bytes
from fltestbed.bench.results import Spread
from fltestbed.bench.scale import grown, judge
from fltestbed.bench.scale_report import Costs, Growth, Load
from fltestbed.bench.waiting import most_at_once
from fltestbed.clock import Clock
from tests.e2e.conftest import fltestbed

MB = 10**6


def load(clients: int, seconds: float, model_bytes: int = 3 * MB, **figures: int) -> Load:
    spread = Spread.of([[seconds]])
    assert spread is not None
    made = Load(
        "small", model_bytes, clients, spread, {}, {}, 3 * MB, 3 * MB * clients, 150 * MB, 200 * MB, 90 * MB, 120 * MB
    )
    return replace(made, **figures)  # type: ignore[arg-type]


def growth(*found: tuple[int, float]) -> list[Growth]:
    return grown("small", [clients for clients, _ in found], [seconds for _, seconds in found * 2][1:], 1)


def test_a_round_may_grow_as_the_clients_do_and_no_more() -> None:
    """10 clients in 0.5 s and 100 in 5 s is linear and holds; 5.01 s does not, though it is below 6 s."""
    for seconds, holds in ((5.0, True), (5.01, False)):
        bars = {bar.what: bar for bar in judge([load(10, 0.5), load(100, seconds)], growth((10, 0.5), (100, seconds)))}
        assert bars["round: 100 / 10 clients"].holds is holds
        assert bars["round, 100 clients, s"].limit == 6.0
        assert bars["round, 100 clients, s"].holds


def test_growth_is_that_of_rounds_in_turn() -> None:
    """10, 40, 40, 10 clients: of three turns the first is left out. A machine twice as slow in the third changes nothing."""
    turns, first = [10, 40, 40, 10], [9.0, 9.0, 9.0]
    for grows, holds in ((4.0, True), (4.2, False)):
        quick = [0.5, grows / 2, grows / 2, 0.5]
        fewer, more = grown("small", turns, [*first, *quick, *(2 * second for second in quick)], 2)
        assert (fewer.clients, more.clients) == (10, 40)
        assert fewer.round.repetitions_s == (0.5, 1.0)
        assert (fewer.round.count, more.round.count) == (4, 4)
        bars = {bar.what: bar for bar in judge([load(10, 1), load(40, 1)], [fewer, more])}
        assert bars["round: 40 / 10 clients"].figure == pytest.approx(grows)
        assert bars["round: 40 / 10 clients"].holds is holds


def test_memory_is_judged_from_the_fewest_to_the_most_clients() -> None:
    """ServerApp 120 to 150 MB is 1.25 times; the SuperLink takes 405 MB more for 270 MB more that wait: 1.5 bytes a byte."""
    last = load(100, 5.0, app_peak_bytes=150 * MB, superlink_peak_bytes=605 * MB)
    found = growth((10, 0.5), (30, 1.5), (100, 5.0))
    bars = {bar.what: bar for bar in judge([load(10, 0.5), load(30, 1.5), last], found)}
    assert bars["ServerApp peak: 100 / 10 clients"].figure == pytest.approx(1.25)
    assert not bars["ServerApp peak: 100 / 10 clients"].holds
    assert bars["SuperLink peak / waiting, more of: 100 / 10 clients"].figure == pytest.approx(1.5)
    assert not bars["SuperLink peak / waiting, more of: 100 / 10 clients"].holds
    assert {"round: 30 / 10 clients", "round: 100 / 30 clients", "round: 100 / 10 clients"} <= bars.keys()


def test_three_loads_give_three_costs() -> None:
    """0.1 s, 2 ms a client, 10 ns a byte and client: 10 x 3 MB takes 0.42 s, 100 x 3 MB 3.3 s, 100 x 0.1 MB 0.4 s."""
    costs = Costs.fit([load(10, 0.42), load(100, 3.3), load(100, 0.4, model_bytes=MB // 10)])
    assert costs is not None
    assert costs.fixed_s == pytest.approx(0.1)
    assert costs.client_s == pytest.approx(0.002)
    assert costs.client_byte_s == pytest.approx(10e-9)
    assert costs.worst_residual == pytest.approx(0, abs=1e-9)
    assert costs.round_s(1000, 3 * MB) == pytest.approx(32.1)
    assert Costs.fit([load(10, 0.42), load(100, 3.3)]) is None


def test_what_waits_is_the_largest_sum_of_stays_that_overlap() -> None:
    """0-10 and 5-15 overlap, 15-20 begins when the second ends; a stay without an end stays."""
    stays = pd.DataFrame({"start": [0, 5, 15], "end": [10, 15, 20], "bytes": [100, 30, 60]})
    assert most_at_once(stays) == 130
    assert most_at_once(pd.concat([stays, pd.DataFrame({"start": [12], "end": [None], "bytes": [500]})])) == 560
    assert most_at_once(stays.iloc[:0]) == 0


def test_shared_pages_are_divided_by_those_who_are_watched() -> None:
    """A library of two of three processes saves each a half of it; a file that nobody else of them maps saves nothing."""
    shared = {"a": {"/lib": 100, "/own": 50}, "b": {"/lib": 80}, "c": {}}
    assert discounts(shared) == {"a": 50, "b": 40, "c": 0}


def test_shared_bytes_are_read_by_file() -> None:
    """Clean and dirty pages of all mappings of a file, not those without one, nor private ones."""
    smaps = (
        "7f00-7f10 r-xp 00000000 08:01 42 /lib/with space.so\nShared_Clean: 8 kB\nShared_Dirty: 4 kB\nPrivate_Dirty: 9 kB\n"
        "VmFlags: rd ex mr\n7f10-7f20 rw-p 00000000 00:00 0 \nShared_Clean: 16 kB\n"
        "7f20-7f30 r--p 00010000 08:01 42                  /lib/with space.so\nShared_Clean: 4 kB\n"
    )
    assert shared_bytes(smaps) == {"/lib/with space.so": 16 * 1024}


def test_a_discount_counts_when_the_process_was_largest() -> None:
    """150 MB with 20 MB shared, then 100 MB after the others have gone: the mark is 150 MB, and so is its discount."""
    found = Footprint(peak_bytes=150, resident=[(1, 150)])
    found.share(20)
    found.resident.append((2, 100))
    found.share(0)
    assert found.peak_pss_bytes == 130
    assert [found.resident_at(at) for at in (0, 1, 5)] == [0, 150, 100]


def test_what_is_shared_with_a_process_that_ends_is_still_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """It maps nothing any more, so the other one, larger than ever, would seem to be alone: that look does not count."""
    maps = "7f00-7f10 r-xp 00000000 08:01 42 /lib\nShared_Clean: 8 kB\n"
    texts = {"status": "VmHWM: 20 kB\nVmRSS: 20 kB\n", "smaps": maps}
    ended: set[str] = set()
    monkeypatch.setattr(Path, "read_text", lambda path: "" if path.parent.name in ended else texts[path.name])
    watch = Watch(Clock(), with_sharing=True)
    for pid in ("1", str(os.getpid())):
        watch.add(pid, int(pid))
    watch.read()
    ended.add("1")
    for _ in range(READINGS_PER_LOOK):
        watch.read()
    assert watch.footprints[str(os.getpid())].discount_bytes == 4 * 1024


def test_a_process_is_read_from_proc() -> None:
    """The test's own: it has more than a megabyte, and its mark is no less than what it has."""
    watch = Watch(Clock(), with_sharing=True)
    watch.add("self", os.getpid())
    watch.add("gone", 2**22 + 1)
    watch.read()
    found = watch.footprints["self"]
    assert found.peak_bytes >= found.resident[0][1] > MB
    assert watch.footprints["gone"].resident == []


def test_bench_scale_runs_and_reports(tmp_path: Path) -> None:
    """Two and three light clients of the tiny model: every figure stands in the report, the status follows the bars."""
    short = ("--clients", "2,3", "--size", "tiny", "--repetitions", "2", "--rounds", "1")
    done = fltestbed("bench", "scale", *short, "--json", tmp_path / "s.json")
    assert done.status in {0, 1}, done.err
    data = json.loads((tmp_path / "s.json").read_text())
    assert done.status == (0 if data["holds"] else 1)
    assert [(found["size"], found["clients"]) for found in data["loads"]] == [("tiny", 2), ("tiny", 3), ("tiny", 3)]
    assert [(found["clients"], len(found["round"]["repetitions_s"])) for found in data["growth"]] == [(2, 2), (3, 2)]
    assert all(found["round"]["count"] == 2 * 2 for found in data["growth"])
    for found in data["loads"]:
        assert found["round"]["median_s"] > 0
        assert len(found["round"]["repetitions_s"]) == 2
        assert found["waiting_bytes"] >= found["message_bytes"] > found["model_bytes"]
        assert found["superlink_peak_bytes"] >= found["superlink_idle_bytes"] > MB
        assert found["app_peak_bytes"] >= found["app_idle_bytes"] > MB
        assert set(found["cpu_ms"]) == {"superlink", "serverapp", "client"}
