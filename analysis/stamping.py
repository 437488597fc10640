"""How late the stamping processes of a run stamped, in a line: what the machines' load adds to every stamp."""

from collections.abc import Mapping
from typing import Any

from analysis.load import Run

SERVER = "server"


def stamp_error(run: Run) -> str | None:
    """What the run's own stamping cost in lateness; None for a run that did not measure it.

    The event loop's lateness is the server's; the wait for a CPU is the mean of a wake-up, of the server and of the client
    where it was longest.
    """
    hosts: Mapping[str, Any] = run.manifest.data.get("hosts") or {}
    found = {name: host["stamp_error"] for name, host in hosts.items() if isinstance(host.get("stamp_error"), dict)}
    parts = []
    lag = found.get(SERVER, {}).get("loop_lag") or {}
    if lag.get("count"):
        late = ", ".join(
            f"{_ms(lag[key])} ({name})" for key, name in (("p50_s", "median"), ("p99_s", "99%"), ("max_s", "most"))
        )
        parts.append(f"the server's event loop came late by {late}")
    waits = {name: wait_s for name, facts in found.items() if (wait_s := _wait_s(facts)) is not None}
    if SERVER in waits:
        parts.append(f"a wake-up waited {_ms(waits.pop(SERVER))} for a CPU on the server")
    if waits:
        worst = max(waits, key=lambda name: waits[name])
        parts.append(f"{_ms(waits[worst])} on {worst}, the client that waited longest")
    return "; ".join(parts) or None


def _wait_s(facts: Mapping[str, Any]) -> float | None:
    scheduling = facts.get("scheduling") or {}
    slices = scheduling.get("time_slices")
    return scheduling["delay_s"] / slices if slices else None


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
