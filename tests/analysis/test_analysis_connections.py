"""Hosts that treat idle connections differently are told, within a run and between runs."""

from pathlib import Path
from typing import Any

from analysis.connections import connection_warnings, host_settings
from analysis.load import Manifest, Run


def run_of(connection: dict[str, Any], **restarts: bool | None) -> Run:
    hosts = {host: {"tcp": {"idle_restart": value}} for host, value in restarts.items()}
    experiment = {"connection": connection}
    manifest = Manifest("r", "complete", "", 0, "5g", "", (), False, None, None, experiment, {"hosts": hosts})
    return Run(Path(), manifest, {})


def test_hosts_that_differ_are_named() -> None:
    """Which is on, which is off, and the setting to change; hosts that agree are not mentioned."""
    (line,) = connection_warnings(run_of({}, server=True, pi=False))
    assert line == (
        "TCP restarts after a pause on some hosts alone (off on pi, on on server): set net.ipv4.tcp_slow_start_after_idle "
        "alike before transfers are compared"
    )
    assert list(connection_warnings(run_of({}, server=True, pi=True))) == []


def test_hosts_that_are_not_as_asked_are_named() -> None:
    """On a real host the toolkit sets nothing: it says where the experiment's wish is not met."""
    asked = {"idle-restart": False, "metrics-cache": None}
    (line,) = connection_warnings(run_of(asked, server=True, pi=True))
    assert line == "connection.idle-restart is false, but not on pi, server: set net.ipv4.tcp_slow_start_after_idle there"


def test_runs_are_compared_by_what_their_hosts_had_set() -> None:
    """on, off, mixed, or unknown where no host could say."""
    key = "hosts: TCP restarts after a pause"
    values = [host_settings(run)[key] for run in (
        run_of({}, server=True), run_of({}, server=False), run_of({}, server=True, pi=False), run_of({}, server=None),
    )]  # fmt: skip
    assert values == ["on", "off", "mixed", "unknown"]
