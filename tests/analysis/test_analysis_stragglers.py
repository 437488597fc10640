"""Stragglers: who, why, how persistently, and which class, by hand."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.load import Run, conform
from analysis.stragglers import Kind, classify, stragglers, table
from fltestbed.measure.derived import CLIENTS_TABLE, ROUNDS_TABLE
from tests.analysis.synthetic_runs import STRAGGLER


def run_of(base: Run, last: str, phases: str = "") -> Run:
    """Return a run of clients a, b, c, whose rounds were ended by the letters of `last`, in uplink or train."""
    numbers = range(1, len(last) + 1)
    rounds = pd.DataFrame({"round": numbers, "ended_by": list(last), "ended_margin_s": [float(n) for n in numbers]})
    rounds["ended_in_phase"] = [{"u": "uplink", "t": "train"}[letter] for letter in phases or "u" * len(last)]
    clients = pd.DataFrame([(n, client, "ok") for n in numbers for client in "abc"], columns=["round", "client", "status"])
    tables = {"rounds.csv": conform(rounds, ROUNDS_TABLE), "clients.csv": conform(clients, CLIENTS_TABLE)}
    return Run(Path(), base.manifest, {**base.tables, **tables})


@pytest.mark.parametrize(
    ("counts", "clients", "kind"),
    [
        ([8], 4, "consistent"),  # 4 * (1/4)**8
        ([5, 2, 1], 4, "unclear"),  # more than half, and 4 * P(B(8, 1/4) >= 5) = 4 * 0.0273 = 0.11
        ([6, 1, 1], 4, "consistent"),  # 4 * P(B(8, 1/4) >= 6) = 4 * 0.00423 = 0.017
        ([4, 4], 4, "competing"),  # no more than half
        ([3, 3, 2], 4, "competing"),
        ([4], 4, "unclear"),  # four rounds are too few
        ([9], 1, "unclear"),  # nobody else
        ([6, 2], 2, "unclear"),  # with two clients 2 * P(B(8, 1/2) >= 6) = 0.29
        ([], 3, "unclear"),
    ],
)
def test_class_follows_the_documented_rule(counts: list[int], clients: int, kind: Kind) -> None:
    """More than half of at least five rounds, and no work of chance, is consistent; no majority is competing."""
    assert classify(counts, clients) == kind


def test_by_hand(runs: list[Run]) -> None:
    """Without round 1, five rounds a a b a a: a in 80%, twice of four pairs again, margins 2 to 6 s, uplink most often."""
    found = stragglers(run_of(runs[0], "caabaa", "ttuuut"))
    assert found is not None
    assert (found.rounds, found.clients, found.client, found.share) == (5, 3, "a", 0.8)
    assert (found.phase, found.margin_s, found.persistence) == ("uplink", 4.0, 0.5)
    assert found.kind == "unclear"  # 3 * P(B(5, 1/3) >= 4) = 3 * 11 / 243 = 0.14


def test_rounds_that_do_not_follow_each_other_are_no_pair(runs: list[Run]) -> None:
    """Persistence counts consecutive rounds alone; one round gives none."""
    run = run_of(runs[0], "aabbaa")
    rounds = run["rounds"][run["rounds"]["round"].isin([2, 3, 5])]
    gap = Run(run.path, run.manifest, {**run.tables, "rounds.csv": rounds})
    found = stragglers(gap)
    assert found is not None
    assert found.persistence == 0.0  # of 2-3 alone
    single = stragglers(run_of(runs[0], "aa"))
    assert single is not None
    assert single.persistence is None


def test_slow_client_of_a_whole_run_is_consistent(runs: list[Run]) -> None:
    """The synthetic run over 5G has a client with a slow uplink, and the table says so; runs without rounds have no row."""
    rows = table([*runs, run_of(runs[0], "")]).set_index("run")
    assert [rows.loc["demo-5g", name] for name in ("client", "phase", "kind")] == [STRAGGLER, "uplink", "consistent"]
    assert len(rows) == 3
