"""Spans reach who listens, and nobody else."""

import itertools

import pytest

from fltestbed.clock import Clock
from fltestbed.measure.events import Span, listening, span


def ticking() -> Clock:
    """A clock that gains 10 ns with each look."""
    ticks = itertools.count(0, 10)
    return Clock(raw_ns=lambda: next(ticks))


def test_a_span_has_phase_start_end_and_detail() -> None:
    """Stamped at both ends of the block; a span within it comes first."""
    spans: list[Span] = []
    with listening(spans.append, ticking()), span("train"), span("evaluate", "test"):
        pass
    assert spans == [Span("evaluate", 10, 20, "test"), Span("train", 0, 30, "")]


def test_a_span_that_raises_is_reported_too() -> None:
    """The time was spent, whatever came of it."""
    spans: list[Span] = []
    with listening(spans.append, ticking()), pytest.raises(ValueError, match="no"), span("train"):
        raise ValueError("no")
    assert spans == [Span("train", 0, 10)]


def test_nobody_hears_what_comes_after_the_block() -> None:
    """A listener hears its own block alone, and an inner one takes over for its block."""
    outer: list[Span] = []
    inner: list[Span] = []
    with listening(outer.append, ticking()):
        with listening(inner.append, ticking()), span("train"):
            pass
        with span("evaluate"):
            pass
    with span("train"):
        pass
    assert ([one.phase for one in outer], [one.phase for one in inner]) == (["evaluate"], ["train"])
