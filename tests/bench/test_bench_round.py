"""Who is measured when, with contenders that are none."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from fltestbed.bench import round as bench_round
from fltestbed.bench.contenders import CONTENDERS, Sample, Task, Traffic
from fltestbed.bench.models import SIZES
from fltestbed.bench.round import Plan, measure


def test_contenders_take_turns_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a drift favours none. Raw comes right behind bundle and repeats what that has just moved; stock, whose rounds
    are long, takes part once, with few of them.
    """
    started: list[str] = []
    rounds: dict[str, int] = {}
    repeated: list[Traffic] = []

    def contender(name: str, task: Task) -> Sample:
        started.append(name)
        rounds[name] = task.rounds
        if name == "raw":
            repeated.append(task.traffic)
        return Sample([1.0], [1.0], [1.0], traffic=Traffic(len(started), 0))  # tells which one it was

    @contextmanager
    def place(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(link="loopback", notes=())

    for name in CONTENDERS:
        monkeypatch.setitem(CONTENDERS, name, partial(contender, name))
    monkeypatch.setattr(bench_round, "place", place)
    (setting,) = measure(Plan(["loopback"], [SIZES["tiny"]], repetitions=3, rounds=7)).settings
    assert started == [
        "bundle", "raw", "grpc", "objects", "stock",
        "objects", "grpc", "bundle", "raw",
        "bundle", "raw", "grpc", "objects",
    ]  # fmt: skip
    assert [traffic.down_bytes for traffic in repeated] == [1, 8, 10]
    assert rounds == dict.fromkeys(CONTENDERS, 7) | {"stock": 2}
    counts = {name: found.round.count for name, found in setting.contenders.items() if found.round is not None}
    assert counts == dict.fromkeys(CONTENDERS, 3) | {"stock": 1}
