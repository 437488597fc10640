"""Whether the hosts of a run, and the runs that are compared, treat an idle connection alike."""

from collections.abc import Iterator

from analysis.load import Run

HOSTS = "hosts: "
"""Begins the name of a setting that hosts have by themselves, whatever the experiment asks for."""

SETTINGS = {
    "idle_restart": (
        "connection.idle-restart",
        "net.ipv4.tcp_slow_start_after_idle",
        "TCP restarts after a pause",
    ),
    "metrics_cache": ("connection.metrics-cache", "net.ipv4.tcp_no_metrics_save", "new connections use what old ones met"),
}
"""By name in the manifest: the key of the experiment, Linux's name, and what it means when it is on."""


def host_settings(run: Run) -> dict[str, str]:
    """What the hosts of a run have set, by Linux's name: on, off, mixed or unknown; to be compared between runs."""
    found = {}
    for name, (_, _, meaning) in SETTINGS.items():
        by_host = _by_host(run, name)
        values = set(by_host.values())
        found[f"{HOSTS}{meaning}"] = "unknown" if not values else "mixed" if len(values) > 1 else _word(values.pop())
    return found


def connection_warnings(run: Run) -> Iterator[str]:
    """Lines for a run whose hosts differ among themselves, or from what the experiment asked for."""
    asked = run.manifest.experiment.get("connection") or {}
    for name, (key, setting, meaning) in SETTINGS.items():
        by_host = _by_host(run, name)
        if len(set(by_host.values())) > 1:
            who = ", ".join(f"{_word(value)} on {host}" for host, value in sorted(by_host.items()))
            yield f"{meaning} on some hosts alone ({who}): set {setting} alike before transfers are compared"
        wanted = asked.get(key.partition(".")[2])
        others = sorted(host for host, value in by_host.items() if wanted is not None and value != wanted)
        if others:
            yield f"{key} is {str(wanted).lower()}, but not on {', '.join(others)}: set {setting} there"


def _by_host(run: Run, name: str) -> dict[str, bool]:
    hosts = run.manifest.data.get("hosts") or {}
    settings = {host: (facts.get("tcp") or {}).get(name) for host, facts in hosts.items()}
    return {host: value for host, value in settings.items() if value is not None}


def _word(value: bool) -> str:
    return "on" if value else "off"
