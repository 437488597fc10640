"""What time synchronisation says, in the words of each daemon's documentation, and of a real chronyd."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.time_sync import TimeSyncProbe, parse_chrony, parse_ptp4l, parse_timesyncd
from fltestbed.measure.probes.tools import Toolbox
from tests.measure.probes.conftest import Install

CHRONY = (
    "CB00710F,203.0.113.15,3,1485424535.128423456,-0.000006523,0.000001234,0.000021345,"
    "12.345,-0.001,0.052,0.013639022,0.001100737,64.2,Normal\n"
)
TIMESYNCD = """       Server: 104.131.155.175 (0.north-america.pool.ntp.org)
Poll interval: 8min 32s (min: 32s; max 34min 8s)
         Leap: normal
      Version: 4
      Stratum: 2
    Reference: AB400749
    Precision: 1us (-30)
Root distance: 6.064ms (max: 5s)
       Offset: -1.371ms
        Delay: 40.500ms
       Jitter: 126.318ms
 Packet count: 115
    Frequency: -58.178ppm
"""
PTP4L = """sending: GET TIME_STATUS_NP
\t90e2ba.fffe.20c7f8-0 seq 0 RESPONSE MANAGEMENT TIME_STATUS_NP
\t\tmaster_offset              310
\t\tingress_time               1361545089345029441
\t\tcumulativeScaledRateOffset +0.000000000
\t\tscaledLastGmPhaseChange    0
\t\tgmTimeBaseIndicator        0
\t\tlastGmPhaseChange          0x0000'0000000000000000.0000
\t\tgmPresent                  true
\t\tgmIdentity                 00a069.fffe.0b552d
"""


def test_chrony_is_read() -> None:
    """A negative correction is a clock that is fast; the bound is 1.100737 + 13.639022 / 2 = 7.920248 ms."""
    record = parse_chrony(CHRONY)
    assert record["uncertainty_s"] == pytest.approx(0.007920248, abs=1e-9)
    assert (record["offset_s"], record["source"], record["stratum"]) == (-6.523e-6, "203.0.113.15", 3)
    assert (record["frequency_ppm"], record["skew_ppm"], record["synchronised"]) == (12.345, 0.052, True)
    unsynchronised = parse_chrony("00000000,,0,0.0,0.0,0.0,0.0,-3.1,0.0,0.0,1.0,1.0,0.0,Not synchronised\n")
    assert (unsynchronised["synchronised"], unsynchronised["source"]) == (False, "00000000")
    assert unsynchronised["offset_s"] is unsynchronised["uncertainty_s"] is None


def test_timesyncd_is_read() -> None:
    """The bound is the root distance and half the round trip, 6.064 + 40.5 / 2 = 26.314 ms."""
    record = parse_timesyncd(TIMESYNCD)
    assert record["uncertainty_s"] == pytest.approx(0.026314)
    assert record["offset_s"] == pytest.approx(-0.001371)
    assert (record["source"], record["stratum"]) == ("104.131.155.175 (0.north-america.pool.ntp.org)", 2)
    assert (record["frequency_ppm"], record["synchronised"]) == (-58.178, True)


def test_timesyncd_before_its_first_answer_has_no_offset() -> None:
    """The server is known, nothing else."""
    record = parse_timesyncd(
        "       Server: n/a (ntp.ubuntu.com)\nPoll interval: 0 (min: 32s; max 34min 8s)\n Packet count: 0\n"
    )
    assert (record["offset_s"], record["uncertainty_s"], record["synchronised"]) == (None, None, False)


@pytest.mark.parametrize(("span", "seconds"), [("+1min 4.5s", 64.5), ("-371us", -371e-6), ("0", 0.0), ("2h 3ms", 7200.003)])
def test_spans_of_time_are_read(span: str, seconds: float) -> None:
    """As systemd writes them."""
    assert parse_timesyncd(f"Server: a\nOffset: {span}\n")["offset_s"] == pytest.approx(seconds)


def test_ptp4l_is_read_with_the_sign_turned() -> None:
    """310 ns ahead of the master is an offset of -310 ns; ptp4l gives no bound."""
    record = parse_ptp4l(PTP4L)
    assert record["offset_s"] == pytest.approx(-310e-9, rel=1e-12)
    assert (record["uncertainty_s"], record["source"], record["synchronised"]) == (None, "00a069.fffe.0b552d", True)


def test_a_ptp4l_without_a_master_has_no_offset() -> None:
    """It writes 0 then, as recorded from ptp4l 3.1.1 alone on its network."""
    alone = PTP4L.replace("310", "0").replace("true", "false").replace("00a069.fffe.0b552d", "de2351.fffe.241df2")
    record = parse_ptp4l(alone)
    assert (record["offset_s"], record["synchronised"]) == (None, False)


def test_a_pmc_without_ptp4l_has_no_answer() -> None:
    """It ends with status 0 all the same."""
    with pytest.raises(TestbedError, match="no ptp4l answers"):
        parse_ptp4l("sending: GET TIME_STATUS_NP\n")


@pytest.mark.parametrize("garbage", ["", "506 Cannot talk to daemon", ",".join("x" * 14)])
def test_garbage_is_refused(garbage: str) -> None:
    """By each parser, on one line."""
    for parse in (parse_chrony, parse_timesyncd, parse_ptp4l):
        with pytest.raises(TestbedError, match=r"^[^\n]+$"):
            parse(garbage)
    with pytest.raises(TestbedError, match="is no span of time"):
        parse_timesyncd("Server: a\nOffset: soon\n")
    with pytest.raises(TestbedError, match="master_offset is 'far'"):
        parse_ptp4l("master_offset far\n")


def test_all_daemons_that_run_are_in_the_manifest_and_the_first_in_the_rows(install: Install, tools: Toolbox) -> None:
    """Here chrony steers the wall clock, ptp4l the adapter's; timedatectl is not there."""
    install("chronyc", f"printf '{CHRONY}'")
    install("pmc", f"cat <<'E'\n{PTP4L}E")
    probe = TimeSyncProbe(30.0, tools)
    told = probe.open()
    assert told["reads"] == "chrony, ptp4l"
    assert [record["daemon"] for record in told["start"]] == ["chrony", "ptp4l"]
    (row,) = probe.read()
    assert (row["time_sync"], row["wall_offset_s"]) == ("chrony", -6.523e-6)
    assert row["wall_offset_uncertainty_s"] == pytest.approx(0.007920248, abs=1e-9)
    assert [record["daemon"] for record in probe.close()["end"]] == ["chrony", "ptp4l"]


def test_a_daemon_that_stops_is_a_failed_reading(install: Install, tools: Toolbox) -> None:
    """And at the end nothing is said of it."""
    install("chronyc", f"printf '{CHRONY}'")
    probe = TimeSyncProbe(30.0, tools)
    probe.open()
    install("chronyc", "echo '506 Cannot talk to daemon'; exit 1")
    with pytest.raises(TestbedError, match=r"chrony: .* 506 Cannot talk to daemon"):
        probe.read()
    assert probe.close() == {"end": []}


def test_a_host_without_synchronisation_says_why(install: Install, tools: Toolbox) -> None:
    """Each daemon with its own reason."""
    install("chronyc", "echo '506 Cannot talk to daemon'; exit 1")
    with pytest.raises(
        HostError, match=r"chrony: .*506 .*; systemd-timesyncd: timedatectl is not installed; ptp4l: pmc is not"
    ):
        TimeSyncProbe(30.0, tools).open()


CHRONYD = """set -e
ip link set lo up
chronyd -x -d -f "$1" -u root >"$2" 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
until chronyc -n tracking >/dev/null 2>&1; do kill -0 $daemon; sleep 0.05; done
chronyc -c -n tracking
"""


@pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("chronyd", "chronyc", "unshare", "ip")), reason="chrony is not installed"
)
def test_a_real_chronyd_is_understood(tmp_path: Path) -> None:
    """One that has itself as reference, in a network namespace of its own, and never touches the clock (-x)."""
    tmp_path.chmod(0o750)  # chronyd refuses a folder that others may enter
    config = tmp_path / "chrony.conf"
    config.write_text(f"local stratum 8\nallow 127.0.0.1\npidfile {tmp_path}/pid\nbindcmdaddress {tmp_path}/socket\n")
    said = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", CHRONYD, "sh", config, tmp_path / "log"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr + (tmp_path / "log").read_text()
    record = parse_chrony(said.stdout)
    assert (record["source"], record["stratum"], record["synchronised"]) == ("7F7F0101", 8, True)
    assert record["offset_s"] == record["uncertainty_s"] == 0.0
