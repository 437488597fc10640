"""The fuzzer's targets take what is right, refuse what is not, and are fuzzed for a moment."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.bench import fuzz_targets
from fltestbed.bench.fuzz import Fuzzed, FuzzReport, fuzz
from fltestbed.bench.fuzz_targets import TARGETS, Target
from fltestbed.bench.report import Bar

bounded = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_reads_its_seeds(target: Target) -> None:
    """Each has some, and none of them is a finding."""
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        target.read(seed)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@bounded
@given(st.data())
def test_a_target_withstands_changed_seeds(target: Target, data: st.DataObject) -> None:
    """Overwritten, cut, repeated: taken or refused with the errors that the reader declares."""
    changed = bytearray(data.draw(st.sampled_from(list(target.seeds()))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    target.read(bytes(changed * data.draw(st.sampled_from((1, 1, 2)))))


def test_a_bug_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises what it does not declare is not swallowed by its target."""

    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(fuzz_targets, "inspect", broken)
    with pytest.raises(KeyError, match="a bug"):
        TARGETS["app"].read(b"")


def test_a_finding_misses_the_bar() -> None:
    """One target of two: the report does not hold."""
    fuzzed = {"a": Fuzzed(10, 100, ""), "b": Fuzzed(5, 90, "KeyError: 'x'")}
    bars = tuple(Bar("findings", name, int(bool(each.finding)), 0) for name, each in fuzzed.items())
    report = FuzzReport(targets=fuzzed, bars=bars)
    assert not report.holds
    assert [bar["holds"] for bar in report.to_dict()["bars"]] == [True, False]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")
def test_the_fuzzer_runs_for_a_second(tmp_path: Path) -> None:
    """In a process of its own, with coverage: thousands of compressed tensors and no finding."""
    fuzzed = fuzz("tensor", 1, tmp_path)
    assert fuzzed.finding == ""
    assert fuzzed.inputs > 100
    assert list(tmp_path.iterdir()) == []
