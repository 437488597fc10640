"""Spans that an app reports while it works: training, evaluation.

A ClientApp has no argument to hand a recorder through, so a span goes to whoever listens in this process: the trainer does
while it calls the app. Where nobody listens (the app runs in a stock SuperNode or a simulation) a span costs one comparison.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from fltestbed.clock import SYSTEM_CLOCK, Clock


@dataclass(frozen=True)
class Span:
    """A piece of a phase on one host.

    Attributes
    ----------
    phase : str
        Name of the phase, as in `fltestbed.measure.schema.PHASES`.
    start_raw_ns, end_raw_ns : int
        CLOCK_MONOTONIC_RAW of this host.
    detail : str
        What a reader should know, for example which data was used.
    """

    phase: str
    start_raw_ns: int
    end_raw_ns: int
    detail: str = ""


Listener = Callable[[Span], None]
_listener: ContextVar[tuple[Listener, Clock] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener, clock: Clock = SYSTEM_CLOCK) -> Iterator[None]:
    """Hand every span that ends within the block to `listener`."""
    token = _listener.set((listener, clock))
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def span(phase: str, detail: str = "") -> Iterator[None]:
    """Report the block as a span of `phase`; also when it raises."""
    current = _listener.get()
    if current is None:
        yield
        return
    listener, clock = current
    start = clock.raw_ns()
    try:
        yield
    finally:
        listener(Span(phase, start, clock.raw_ns(), detail))
