"""A server's host before it starts, with real certificates and ports; versions and clocks as a client compares them."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fltestbed.check.arrival import compare_versions, judge_offset
from fltestbed.check.finding import Finding
from fltestbed.check.server import check_admission, check_gnb_log, check_port, check_run_folder
from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.measure.host import toolkit_versions
from fltestbed.security.folder import CertificateFolder
from tests.check.findings import lines, only


def experiment(**server: object) -> Experiment:
    """One for two clients."""
    return validate(Experiment, {"name": "x", "clients": 2, "server": server}, "test")


def in_days(days: float) -> Clock:
    """A clock that is so far ahead."""
    return Clock(wall_ns=lambda: int((datetime.now(UTC) + timedelta(days=days)).timestamp() * 1e9))


@pytest.mark.parametrize(("days", "status"), [(0, "ok"), (25, "warning"), (31, "error")])
def test_a_certificate_is_judged_by_the_days_that_are_left(tmp_path: Path, days: float, status: str) -> None:
    """Of 30: all of them, five, none."""
    CertificateFolder(tmp_path, SYSTEM_CLOCK).make(("10.0.0.1",), (), days=30, found=())
    found = only(check_admission(experiment(certificates=str(tmp_path)), in_days(days)))
    assert (found.check, found.status) == ("certificates", status)
    assert bool(found.advice or "renew" in found.said) == (status != "ok")


def test_what_the_server_would_refuse_is_an_error(tmp_path: Path) -> None:
    """No certificates where TLS is on: the message says what to run. Without TLS nothing is missing."""
    found = only(check_admission(experiment(certificates=str(tmp_path / "none")), SYSTEM_CLOCK))
    assert (found.status, "fltestbed certs" in found.said) == ("error", True)
    assert only(check_admission(experiment(tls=False), SYSTEM_CLOCK)).said == "none: the server speaks plain HTTP"


@pytest.mark.parametrize(("names", "status"), [(("pi-0", "pi-1"), "ok"), (("pi-0",), "warning")])
def test_a_run_wants_as_many_keys_as_clients(tmp_path: Path, names: tuple[str, ...], status: str) -> None:
    """Two clients cannot join with one key."""
    folder = CertificateFolder(tmp_path, SYSTEM_CLOCK)
    folder.make(("10.0.0.1",), names, found=())
    said = list(check_admission(experiment(certificates=str(tmp_path), **{"node-keys": str(folder.nodes)}), SYSTEM_CLOCK))
    assert lines(said) == [("certificates", "ok"), ("node keys", status)]


def test_a_port_that_is_taken_is_an_error() -> None:
    """By a server that runs already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert only([check_port(experiment(host="127.0.0.1", port=port))]).status == "error"
    assert only([check_port(experiment(host="127.0.0.1", port=port))]).status == "ok"


def test_a_run_folder_that_exists_is_a_warning(tmp_path: Path) -> None:
    """The server would refuse it; another name is all it takes."""
    assert only([check_run_folder(tmp_path, "new")]).status == "ok"
    (tmp_path / "old").mkdir()
    assert only([check_run_folder(tmp_path, "old")]).advice == "give the server another --name"


def test_fltestbed_and_flwr_have_to_be_the_same() -> None:
    """Of others it is told, and no more."""
    own = toolkit_versions() | {"torch": "2.9.1"}
    found = only(compare_versions(own, own | {"torch": "2.13.0"}))
    assert (found.status, found.said.endswith("on both; torch 2.9.1 here, 2.13.0 there")) == ("ok", True)
    for package in toolkit_versions():
        found = only(compare_versions(own, own | {package: "0.1.dev"}))
        assert (found.status, f"{package} {own[package]} here, 0.1.dev there" in found.said) == ("warning", True)


@pytest.mark.parametrize(
    ("offset_s", "status", "said"),
    [
        (1.0, "ok", "within 2 s"),
        (172_800.0, "warning", "172800 s behind (2.0 days)"),
        (-172_800.0, "warning", "172800 s ahead (2.0 days)"),
        (60.0, "warning", "60 s behind"),
    ],
)
def test_a_wrong_clock_is_a_warning(offset_s: float, status: str, said: str) -> None:
    """Server minus client: the client joins all the same."""
    found = only([judge_offset(offset_s)])
    assert (found.status, found.said) == (status, said)


def test_a_gnbs_log_is_there_and_grows(tmp_path: Path) -> None:
    """One that nobody writes, and one that is not there, leave radio.csv without its rows: that is said before."""
    log = tmp_path / "gnb.log"
    missing = only([check_gnb_log(log, SYSTEM_CLOCK)])
    assert (missing.status, missing.said) == ("warning", f"{log}: No such file or directory")
    log.touch()
    written_ns = log.stat().st_mtime_ns

    def judge(age_s: int) -> Finding:
        return only([check_gnb_log(log, Clock(wall_ns=lambda: written_ns + age_s * 10**9))])

    judged = [judge(age_s) for age_s in (2, 10, 11, -5)]
    assert [each.status for each in judged] == ["ok", "ok", "warning", "ok"]
    assert judged[0].said == f"{log}, written 2 s ago"
