"""The server's own host before it starts: its port, its certificates, its run folder, the log of its gNB."""

import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fltestbed.check.finding import Said, error, ok, warning
from fltestbed.clock import Clock
from fltestbed.config import Experiment
from fltestbed.errors import HostError, TestbedError
from fltestbed.server.admission import Admission
from fltestbed.server.listening import listen

MOST_LISTED = 8

QUIET_S = 10.0
"""A gNB reports each second or so; a log that has been still for longer is that of none, or of another day."""


def check_admission(experiment: Experiment, clock: Clock) -> Iterator[Said]:
    """Certificate, key and list of clients, as the server will read them."""
    try:
        admission = Admission.read(experiment.server, clock, emulated=False)
    except TestbedError as problem:
        yield error("certificates", str(problem))
        return
    tls = admission.description["tls"]
    if tls is None:
        yield ok("certificates", "none: the server speaks plain HTTP")
    else:
        yield judge_certificate(tls, clock)
    if admission.registered is not None:
        names = [str(key.name) for key in admission.registered]
        few = ", ".join(names[:MOST_LISTED]) + (" ..." if len(names) > MOST_LISTED else "")
        said = f"{len(names)} keys may join: {few}"
        if len(names) < experiment.clients:
            yield warning("node keys", said, f"the run wants {experiment.clients} clients: fltestbed certs --node NAME")
        else:
            yield ok("node keys", said)


def judge_certificate(described: dict[str, Any], clock: Clock) -> Said:
    """How long the certificate is still valid."""
    until = datetime.fromisoformat(str(described["not_after"]))
    days = math.floor((until - datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC)).total_seconds() / 86400)
    said = f"valid until {until:%Y-%m-%d}, for {', '.join(described['certificate_addresses'])}"
    if days < 0:
        return error("certificates", said, "expired: fltestbed certs --renew")
    if days < 7:
        return warning("certificates", said, f"{days} days left: fltestbed certs --renew")
    return ok("certificates", said)


def check_port(experiment: Experiment) -> Said:
    """Whether the server could listen where it is told to."""
    host, port = experiment.server.host, experiment.server.port
    try:
        with contextlib.closing(listen(host, port)):
            return ok("port", f"{host}:{port} is free")
    except HostError as problem:
        return error("port", str(problem), "a server may be running already: look with: ss -ltnp")


def check_run_folder(runs: Path, name: str) -> Said:
    """A run folder is never overwritten."""
    if (runs / name).exists():
        return warning("run folder", f"{runs / name} exists", "give the server another --name")
    return ok("run folder", f"{runs / name} is to be made")


def check_gnb_log(path: Path, clock: Clock) -> Said:
    """Whether the log that is to be read into radio.csv is there, can be read, and grows."""
    try:
        with path.open("rb"):
            still_s = max(0, clock.wall_ns() - path.stat().st_mtime_ns) / 1e9
    except OSError as problem:
        advice = (
            "start the gNB first, with its log in a file that this user may read; without it radio.csv has no rows of it"
        )
        return warning("gNB log", f"{path}: {problem.strerror}", advice)
    said = f"{path}, written {still_s:.0f} s ago"
    if still_s > QUIET_S:
        return warning("gNB log", said, "is the gNB up, and does it report (level info, or srsRAN's metrics)?")
    return ok("gNB log", said)
