"""Which figures there are: specifications as data.

A specification says which tidy table it draws (a function of `analysis.series`), which of its columns mean what, and what
stands at the axes and below the picture. `analysis.draw` turns it into a picture without knowing what a link or a phase is.
"""

from analysis.series import hosts, learning, rounds, transfers
from analysis.specification import Axis, Figure, Palette, Panel

_WAIT = "wait: until the last reply is there."
_SECONDS_OF_MODEL = Axis("transfer time of the model", "s", log=True)


def _direction(direction: str) -> tuple[Panel, Panel]:
    where = ("direction", direction)
    title = f"{direction}: {'client to server' if direction == 'uplink' else 'server to client'}"
    share = Axis("share of transfers", limits=(0.0, 1.02))
    return (
        Panel("ecdf", "seconds", "", "link", _SECONDS_OF_MODEL, share, error="half_width_s", where=where, title=title),
        Panel("boxes", "seconds", "link", "link", _SECONDS_OF_MODEL, Axis(""), where=where),
    )


def _learning(metric: str, x: str, x_axis: Axis, limits: tuple[float | None, float | None]) -> Panel:
    timed = metric == "accuracy" and x == "time_s"
    return Panel(
        form="lines",
        x=x,
        y="value",
        colour="link",
        series="run",
        faint="faint",
        ring="reached" if timed else "",
        level="target" if timed else "",
        where=("metric", metric),
        x_axis=x_axis,
        y_axis=Axis(f"{metric} of the global model", limits=limits),
        height_in=1.45,
    )


def _condition(
    measure: str,
    label: str,
    unit: str = "",
    limits: tuple[float | None, float | None] | None = None,
    palette: Palette = "client",
) -> Panel:
    return Panel(
        form="lines",
        x="time_s",
        y="value",
        colour="client",
        palette=palette,
        where=("measure", measure),
        x_axis=Axis("time since the run's zero", "s"),
        y_axis=Axis(label, unit, limits=limits),
        height_in=0.85,
    )


FIGURES = (
    Figure(
        name="anatomy",
        title="Where the time of a round goes",
        table=rounds.anatomy,
        caption="Time in each phase of a round, mean over rounds: of all clients, and of the client that ended the round. A "
        "bar is the mean round, until the new model is ready. " + _WAIT + " {other}",
        leaves_out=True,
        needs="a round whose aggregation ended",
        panels=(
            Panel("bars", "mean_s", "bar", "part", Axis("time in a round", "s"), Axis(""), palette="phase", text="label"),
        ),
    ),
    Figure(
        name="transfers",
        title="How long the model takes over each link",
        table=transfers.transfers,
        caption="All clients and rounds, first byte sent to last byte received. Boxes: quartiles, whiskers from the 5th to "
        "the 95th percentile. Bars at the medians: mean half-width of the clock mapping, {half_widths}.",
        leaves_out=True,
        needs="a downlink or an uplink with stamps at both ends",
        panels=(*_direction("uplink"), *_direction("downlink")),
    ),
    Figure(
        name="accuracy",
        title="What the model has learnt by when",
        table=learning.learning,
        caption="One point a round, round 0 before training; thin: each run, thick: mean of a link's runs. Seconds from the "
        "start of round 1, evaluation on the server included. {reached}",
        needs="an accuracy or a loss of the global model in metrics.csv",
        panels=(
            _learning("accuracy", "time_s", Axis("time", "s", limits=(0.0, None)), (0.0, 1.0)),
            _learning("accuracy", "round", Axis("round"), (0.0, 1.0)),
            _learning("loss", "time_s", Axis("time", "s", limits=(0.0, None)), (0.0, None)),
            _learning("loss", "round", Axis("round"), (0.0, None)),
        ),
        columns=2,
    ),
    Figure(
        name="timeline",
        title="One round, client by client",
        table=rounds.timeline,
        caption="For each link the round of median duration of its first run, on the server's clock; a client's phases are "
        "placed to within {placement}. Blank: no phase explains it. " + _WAIT,
        needs="a round whose aggregation ended",
        panels=(
            Panel(
                form="lanes",
                x="seconds",
                y="lane",
                colour="phase",
                palette="phase",
                start="start_s",
                x_axis=Axis("time since the round began", "s"),
                y_axis=Axis(""),
            ),
        ),
        facet="panel",
    ),
    Figure(
        name="stragglers",
        title="Who ended each round, and in which phase",
        table=rounds.stragglers,
        caption="Coloured: the client whose reply was last, by the phase in which it lost most against the median of the "
        "others. x: no reply. Lines part the runs. {persistence}.",
        needs="a round that clients were asked to take part in",
        panels=(
            Panel(
                form="cells",
                x="column",
                y="client",
                colour="phase",
                palette="phase",
                text="mark",
                split="run",
                x_axis=Axis("round, runs one after the other"),
                y_axis=Axis(""),
            ),
        ),
        facet="link",
    ),
    Figure(
        name="clients",
        title="Phases against the number of clients",
        table=rounds.clients,
        caption="Mean over clients and rounds; bars from the least to the greatest mean of a run where there are several. "
        "{hidden}",
        leaves_out=True,
        needs="other numbers of clients over the same link",
        panels=(
            Panel(
                form="lines",
                x="clients",
                y="mean_s",
                colour="phase",
                palette="phase",
                series="phase",
                low="low_s",
                high="high_s",
                x_axis=Axis("clients"),
                y_axis=Axis("time in a round", "s", limits=(0.0, None)),
            ),
        ),
        facet="link",
    ),
    Figure(
        name="goodput",
        title="Goodput against the link's capacity",
        table=transfers.goodput,
        caption="Payload bits a second: of one transfer, median and 5th to 95th percentile; of all of a round's transfers "
        "together while one at least was under way, mean. Capacity{per_client}: the configured rate, which counts Ethernet "
        "frames, or what was measured before the run. {without}",
        leaves_out=True,
        needs="a downlink or an uplink with its bytes",
        panels=(
            Panel(
                form="ranges",
                x="mbit",
                y="place",
                colour="link",
                series="kind",
                low="low",
                high="high",
                x_axis=Axis("goodput", "Mbit/s", log=True),
                y_axis=Axis(""),
            ),
        ),
    ),
    Figure(
        name="conditions",
        title="Uplink, and what went on beside it",
        table=hosts.conditions,
        caption="Clients of {run} over {link}. Uplinks and their retransmissions stand at the uplink's start. {absent}",
        needs="an uplink with stamps at both ends",
        panels=(
            _condition("uplink", "uplink", "s", (0.0, None)),
            _condition("signal", "signal", "dBm"),
            _condition("block errors", "block errors", limits=(0.0, None), palette="link"),
            _condition("throttled", "throttled", limits=(-0.1, 1.1)),
            _condition("cpu", "CPU, 100 a core", "%", (0.0, None)),
            _condition("retransmissions", "segments\nsent again", limits=(0.0, None)),
        ),
    ),
    Figure(
        name="clock",
        title="The clients' clocks against the server's",
        table=hosts.clocks,
        caption="Server minus client clock, less each client's median, in the first run of each link. The truth lies within "
        "the band, whatever the path's asymmetry; widest half-width: {widest}.",
        needs="exchanges with four stamps in clock_samples.csv",
        panels=(
            Panel(
                form="bands",
                x="time_s",
                y="offset_ms",
                colour="client",
                palette="client",
                error="half_width_ms",
                x_axis=Axis("time since the run's zero", "s"),
                y_axis=Axis("offset", "ms"),
                height_in=0.95,
            ),
        ),
        facet="link",
    ),
)
