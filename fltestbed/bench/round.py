"""`fltestbed bench round`: seconds of a round without training, beside what else moves the same model.

The contenders take turns, in every other repetition the other way round (A B C C B A ...), so what else the machine does
meets all of them, and a drift favours none. Bars: a round of bundle on loopback takes at most as long as the gRPC path's;
its transfers on a shaped link take at most 1.05 times as long as bare sockets.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fltestbed.bench.contenders import CONTENDERS, Sample, Task, Traffic, middle, missing
from fltestbed.bench.models import Size
from fltestbed.bench.noise import CLIENTS
from fltestbed.bench.place import CONGESTION_CONTROL, LOOPBACK, place
from fltestbed.bench.report import Bar
from fltestbed.bench.results import Contender, RoundReport, Setting, Spread
from fltestbed.errors import TestbedError
from fltestbed.scratch import scratch_folder

MOST_OF_GRPC = 1.0
MOST_OF_RAW = 1.05
STOCK_ROUNDS = 2
"""A round of the stock deployment takes more than 10 s whatever the link: few of them, in the first repetition alone."""

ABOUT = (
    f"{CLIENTS} clients, fresh random weights each round, no training; congestion control {CONGESTION_CONTROL}",
    "round: from the start of configuring it to that of the next; the first and the last are not counted",
    "downlink, uplink: first byte sent to last byte received, both on this machine's one clock",
    f"stock: started once, in the first repetition, for at most {STOCK_ROUNDS} counted rounds",
    "transfers of stock: from packets, by its large requests and responses; a capture runs beside it",
    "raw: the payload of bundle over bare sockets, all clients at once, with the pauses of the bundle run right before it",
)

log = logging.getLogger("fltestbed")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    links : sequence of str
        "loopback", shipped profiles, or paths of profiles.
    sizes : sequence of Size
    contenders : sequence of str
        Names in `CONTENDERS`.
    repetitions : int
        How often each contender is started.
    rounds : int or None
        Counted rounds of one repetition; None for what suits the size.
    backend : str
        How links are emulated.
    """

    links: Sequence[str]
    sizes: Sequence[Size]
    contenders: Sequence[str] = tuple(CONTENDERS)
    repetitions: int = 3
    rounds: int | None = None
    backend: str = "auto"


@dataclass
class _Gathered:
    """Samples of one setting, by contender, one a repetition."""

    notes: tuple[str, ...] = ()
    link: str = ""
    samples: dict[str, list[Sample]] = field(default_factory=dict)


def measure(plan: Plan) -> RoundReport:
    """Run the benchmark; nothing is left running.

    Raises
    ------
    TestbedError
        A contender failed; the message names it and what it said last.
    """
    absent = {name: reason for name in plan.contenders if (reason := missing(name)) is not None}
    present = replace(plan, contenders=[name for name in plan.contenders if name not in absent])
    settings = tuple(_measure_setting(present, link, size) for link in plan.links for size in plan.sizes)
    bars = tuple(bar for setting in settings for bar in judge(setting))
    return RoundReport(about=(*ABOUT, *absent.values()), settings=settings, bars=bars)


def judge(setting: Setting) -> list[Bar]:
    """The bars of one setting, and the ratios to what has no bar, as far as both sides were measured."""
    on_loopback = setting.link == LOOPBACK
    of_raw = None if on_loopback else MOST_OF_RAW
    sides = [("round", "bundle", "grpc", MOST_OF_GRPC if on_loopback else None), ("round", "bundle", "stock", None)]
    for what in ("downlink", "uplink"):
        sides += [(what, "bundle", "raw", of_raw), (what, "objects", "raw", None), (what, "stock", "raw", None)]
    bars = []
    for what, one, other, most in sides:
        ours, theirs = (_median_s(setting.contenders.get(name), what) for name in (one, other))
        if ours is not None and theirs:
            bars.append(Bar(f"{what}: {one} / {other}", f"{setting.link}, {setting.size}", ours / theirs, most))
    return bars


def _median_s(contender: Contender | None, what: str) -> float | None:
    spread: Spread | None = getattr(contender, what, None)
    return None if spread is None else spread.median_s


def turns(contenders: Sequence[str], repetition: int) -> list[str]:
    """Who takes part in a repetition, from 0, and in which order: `raw` right behind `bundle`, as part of its turn."""
    names = [name for name in CONTENDERS if name in contenders and (name != "stock" or repetition == 0)]
    if repetition % 2 == 1:
        places = list(CONTENDERS)
        names.sort(key=lambda name: places.index("bundle" if name == "raw" else name), reverse=True)
    return names


def _measure_setting(plan: Plan, link: str, size: Size) -> Setting:
    gathered = _Gathered()
    rounds = plan.rounds or size.rounds
    for repetition in range(plan.repetitions):
        # What a message and a reply carry, for raw, unless bundle has said it exactly and with its pauses.
        traffic = Traffic(size.model_bytes, size.model_bytes)
        for name in turns(plan.contenders, repetition):
            log.info("%s, %s model: %s, repetition %s of %s", link, size.name, name, repetition + 1, plan.repetitions)
            counted = min(rounds, STOCK_ROUNDS) if name == "stock" else rounds
            with (
                scratch_folder("bench") as folder,
                place(link, CLIENTS, plan.backend) as here,
            ):
                try:
                    sample = CONTENDERS[name](Task(here, size, counted, folder, traffic))
                except TestbedError as error:
                    raise TestbedError(f"{name} on {here.link}, {size.name} model: {error}") from error
                gathered.link, gathered.notes = here.link, here.notes
            if name == "bundle":
                traffic = sample.traffic or traffic
            gathered.samples.setdefault(name, []).append(sample)
    return summarise(gathered.link, gathered.notes, size, gathered.samples)


def summarise(link: str, notes: tuple[str, ...], size: Size, samples: dict[str, list[Sample]]) -> Setting:
    """Put the repetitions of one setting together.

    Parameters
    ----------
    samples : dict of str to list of Sample
        One sample a repetition, by contender.
    """
    contenders = {
        name: Contender(
            Spread.of([sample.round_s for sample in of_one]),
            Spread.of([sample.downlink_s for sample in of_one]),
            Spread.of([sample.uplink_s for sample in of_one]),
        )
        for name, of_one in samples.items()
    }
    of_bundle = samples.get("bundle", [])
    traffics = [sample.traffic for sample in of_bundle if sample.traffic is not None]
    moved = traffics[0] if traffics else Traffic(size.model_bytes, size.model_bytes)
    phases: dict[str, list[float]] = {}
    for sample in of_bundle:
        for phase, values in sample.phase_s.items():
            phases.setdefault(phase, []).extend(values)
    return Setting(
        link=link,
        notes=notes,
        size=size.name,
        tensors=len(size.shapes),
        model_bytes=size.model_bytes,
        down_bytes=moved.down_bytes,
        up_bytes=moved.up_bytes,
        turnaround_s=middle([traffic.turnaround_s for traffic in traffics]),
        gap_s=middle([traffic.gap_s for traffic in traffics]),
        phases_s={phase: middle(values) for phase, values in phases.items() if values},
        contenders=contenders,
    )
