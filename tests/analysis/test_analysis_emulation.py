"""What captions say of links, pace and strangers' traffic, and of what the emulation could not do."""

from dataclasses import replace
from typing import Any

from analysis.emulation import emulation, limits
from analysis.load import Run

STORED_5G = (
    "5g is emulated by wirefilter: one rate per direction for all clients; uplink 20 Mbit/s, 14±4 ms, queue 300 kB; "
    "downlink 90 Mbit/s, 10±2 ms, queue 500 kB."
)


def of(run: Run, **manifest: Any) -> Run:
    """Return the run with parts of its manifest replaced."""
    return replace(run, manifest=replace(run.manifest, **manifest))


def test_links_of_real_runs_are_told_in_full(campaign: list[Run]) -> None:
    """Medium, rate, delay, jitter and queue of each direction, once a link; then the pace, then the limits."""
    told = emulation(campaign)
    assert told[:4] == [
        STORED_5G,
        "wifi is emulated by wirefilter: one budget of air time for all clients and both directions; "
        "each way 80 Mbit/s, 2±1 ms, queue 250 kB.",
        "ethernet is emulated by tbf: a rate for each client; each way 300 Mbit/s, 0.1 ms, queue 250 kB.",
        "Training is paced: an epoch takes 0.3, 0.3, 0.4 s (client by client) at least.",
    ]
    assert told[4].startswith("Limits of the emulation: (1) wirefilter keeps time in milliseconds")
    assert "tbf emulates the rate alone: no uplink delay 0.1 ms (ethernet)" in told[4]
    assert len(told) == 5


def test_a_real_link_is_told_as_such(campaign: list[Run]) -> None:
    """Nothing was emulated: the caption says so, and knows no limits."""
    assert emulation([of(campaign[0], backend="", notes=(), paced=False)]) == ["5g is real.", "Training is not paced."]


def test_runs_of_one_link_that_differ_are_named(campaign: list[Run]) -> None:
    """Of two runs over 5g one has a lossy link with a trace: each sentence names its runs."""
    link = dict(campaign[1].manifest.data["link"])
    link["profile"] = link["profile"] | {"trace": [{"client": 0}], "uplink": {"rate-mbit": 5, "loss-percent": 1}}
    other = of(campaign[1], data=campaign[1].manifest.data | {"link": link})
    first, second, *_ = emulation([campaign[0], other])
    assert first == STORED_5G.replace("500 kB.", "500 kB (stored-5g-1).")
    assert second == (
        "5g is emulated by wirefilter: one rate per direction for all clients; uplink 5 Mbit/s, 0 ms, 1% lost; "
        "downlink 90 Mbit/s, 10±2 ms, queue 500 kB; clients' rates vary by a trace (stored-5g-2)."
    )


def test_partial_pace_and_a_strangers_flow_name_their_runs(campaign: list[Run]) -> None:
    """One link of two is paced, and has a competing flow: both are told of it alone."""
    flow = {"direction": "both", "protocol": "udp", "rate-mbit": 5.0}
    experiment = campaign[0].manifest.experiment
    pacing = {"seconds-per-batch": [0.25], "seconds-per-epoch": None}
    busy = of(campaign[0], experiment=experiment | {"competing-flow": flow, "pacing": pacing})
    told = emulation([busy, of(campaign[3], paced=False)])
    assert "A stranger's UDP flow competes in both directions at 5 Mbit/s (5g)." in told
    assert "Training is paced: a batch takes 0.25 s at least (5g)." in told
    assert "Training is not paced (wifi)." in told


def test_limits_of_the_emulation_are_named_once(runs: list[Run]) -> None:
    """Each limit with its links, unless it is one of all of them."""
    assert limits(runs) == ["one queue for all clients instead of fair queues"]
    both = [runs[0], of(runs[1], notes=("no loss",))]
    assert limits(both) == ["one queue for all clients instead of fair queues (5g)", "no loss (wifi)"]
