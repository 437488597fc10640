"""The probe process, as client and server use it: real, with programs that stand in for those of a host with a modem."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config import Probes
from fltestbed.errors import TestbedError
from fltestbed.measure.probes.host import HostProbes
from tests.measure.probes.conftest import Install
from tests.measure.probes.test_probes_modem import LIST, LTE, MODEM, NR, mmcli

PATIENCE_S = 30.0
OFF = dict.fromkeys(("system", "throttling", "time_sync", "wifi", "modem"), False)


class Host:
    """Probes of this machine, and what has come of them."""

    def __init__(self, interface: str = "lo", radio: bool = True, **on: Any) -> None:
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self.processes = [os.getpid()]
        self._changed = threading.Condition()
        settings = Probes.model_validate({"interval-s": 0.1, "modem-interval-s": 1}).model_dump(mode="json") | OFF | on
        self.probes = HostProbes("pi-1", interface, settings, radio, lambda: self.processes, self._row, self._fact)

    def _row(self, table: str, row: dict[str, Any]) -> None:
        with self._changed:
            self.rows.append((table, row))
            self._changed.notify_all()

    def _fact(self, name: str, facts: dict[str, Any]) -> None:
        with self._changed:
            self.facts[name] = facts
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it is true of rows or facts."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)

    @property
    def process(self) -> psutil.Process:
        """The probe process."""
        (child,) = (c for c in psutil.Process().children() if "fltestbed.measure.probes" in c.cmdline())
        return child


def test_the_system_is_read_by_a_process_of_the_lowest_priority() -> None:
    """Rows are stamped by the raw clock, carry bytes of the interface, and what the probes cost; nothing is left."""
    host = Host(system=True)
    before_ns = SYSTEM_CLOCK.raw_ns()
    host.probes.start()
    host.wait_for(lambda: len(host.rows) >= 3)
    process = host.process
    assert process.nice() == 19
    host.probes.stop()
    assert not process.is_running()
    (table, row) = host.rows[1]
    assert table == "system"
    assert before_ns < row["raw_ns"] < SYSTEM_CLOCK.raw_ns()
    assert (row["interface"], row["rx_bytes"]) == ("lo", row["tx_bytes"])
    assert row["probes_cpu_s"] > 0
    own_bytes = psutil.Process().memory_info().rss
    assert row["process_memory_bytes"] > 0.8 * own_bytes  # this process and the probe process
    assert host.facts["system"]["samples"] >= 3
    assert host.facts["system"]["cpu_s_per_sample"] > 0


def test_probes_pause_when_they_are_switched_off() -> None:
    """While another host's are read five times they are not, and are as soon as they are switched on."""
    paused, other = Host(system=True), Host(system=True)
    paused.probes.switch(False)
    paused.probes.start()
    paused.wait_for(lambda: "system" in paused.facts)
    other.probes.start()
    other.wait_for(lambda: len(other.rows) >= 5)
    assert paused.rows == []
    paused.probes.switch(True)
    paused.wait_for(lambda: len(paused.rows) >= 1)
    paused.probes.stop()
    other.probes.stop()


def test_a_trainer_that_comes_later_is_counted() -> None:
    """The processes are asked again after every row."""
    host = Host(system=True)
    with subprocess.Popen([sys.executable, "-c", "x = bytearray(200 << 20); input()"], stdin=subprocess.PIPE) as trainer:
        host.probes.start()
        host.wait_for(lambda: len(host.rows) >= 1)
        host.processes = [*host.processes, trainer.pid]
        alone_bytes = host.rows[0][1]["process_memory_bytes"]
        host.wait_for(lambda: host.rows[-1][1]["process_memory_bytes"] > alone_bytes + (200 << 20))
        trainer.communicate(b"\n")
    host.probes.stop()


def test_a_modem_is_read_and_left_as_it_was(install: Install) -> None:
    """Rows of both technologies; the refresh rate is put back when the probes stop."""
    rate = mmcli(install, rate_s=0)
    host = Host("wwan0", modem=True)
    host.probes.start()
    host.wait_for(lambda: len(host.rows) >= 2)
    assert rate.read_text().strip() == "1"
    host.probes.stop()
    assert rate.read_text().strip() == "0"
    for (table, row), expected in zip(host.rows, (NR, LTE), strict=False):
        assert table == "radio"
        assert {key: value for key, value in row.items() if key != "raw_ns"} == expected
    assert host.facts["modem"]["reads"] == "ModemManager"


KILLED = """
import sys, threading
from fltestbed.measure.probes.host import HostProbes
said = threading.Event()
probes = HostProbes("pi-1", "wwan0", SETTINGS, True, lambda: [], lambda *_: None, lambda *_: said.set())
probes.start()
said.wait()
print("open", flush=True)
threading.Event().wait()
"""


def test_a_killed_client_leaves_the_modem_as_it_was(install: Install) -> None:
    """Its probe process sees the end of its input, puts the rate back and ends."""
    rate = mmcli(install, rate_s=0)
    settings = Probes().model_dump(mode="json") | OFF | {"modem": True}
    code = KILLED.replace("SETTINGS", repr(settings))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        (child,) = psutil.Process(client.pid).children()
        assert rate.read_text().strip() == "5"
        client.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], PATIENCE_S)
    assert not child.is_running()
    assert rate.read_text().strip() == "0"


def test_a_tool_that_hangs_holds_up_nothing(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """The system is read on; at the end the tool is not waited for, and that is no trouble."""
    install("mmcli", "sleep 64.75")
    host = Host(system=True, modem=True)
    host.probes.start()
    host.wait_for(lambda: len(host.rows) >= 3)
    host.probes.stop()
    assert host.facts["modem"] == {"on": False, "reason": "the run was over before it answered"}
    assert caplog.messages == []
    assert [p for p in psutil.process_iter(["cmdline"]) if "64.75" in (p.info["cmdline"] or [])] == []


def test_a_tool_that_turns_to_garbage_is_told_once(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """One message with the host's name; the run goes on and the manifest has the reason."""
    mmcli(install)
    host = Host("wwan0", system=True, modem=True)
    host.probes.start()
    host.wait_for(lambda: "modem" in host.facts)
    good = (Path(os.environ["PATH"].split(os.pathsep)[0]) / "mmcli").read_text()
    install("mmcli", f'case "$*" in *--signal-setup=*) ;; *) echo "%&$!";; esac\n: {MODEM} {LIST!r}')
    host.wait_for(lambda: bool(caplog.messages) and len(host.rows) > 3)
    install("mmcli", good.removeprefix("#!/bin/sh\n"))
    host.probes.stop()
    (message,) = caplog.messages
    assert message.startswith("pi-1: probe modem: mmcli: answered with '%&")
    assert message.endswith("which is not JSON; the run goes on")
    assert host.facts["modem"]["failures"] >= 1
    assert host.facts["modem"]["failure"].endswith("which is not JSON")


def test_a_probe_process_that_dies_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """And the run goes on without it; to stop what has died is no error."""
    host = Host(system=True)
    host.probes.start()
    host.wait_for(lambda: bool(host.rows))
    host.process.kill()
    host.probes._thread.join(PATIENCE_S)
    host.processes = []
    host.probes.stop()
    host.probes.stop()
    assert caplog.messages == ["pi-1: the probe process has ended; the run goes on without it"]


def test_with_all_switched_off_there_is_no_process() -> None:
    """Nothing is started, so nothing disturbs."""
    host = Host()
    host.probes.start()
    assert [c for c in psutil.Process().children() if "fltestbed.measure.probes" in c.cmdline()] == []
    host.probes.stop()
    assert host.facts == {}


def test_rows_that_cannot_be_written_do_not_stop_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is told by whoever runs the rounds; here the rest is not listened to, and the process ends as ever."""

    def refuse(_table: str, _row: dict[str, Any]) -> None:
        tried.set()
        raise TestbedError("runs/a: rows cannot be written: No space left on device")

    tried = threading.Event()
    settings = Probes.model_validate({"interval-s": 0.1}).model_dump(mode="json") | OFF | {"system": True}
    probes = HostProbes("server", "all", settings, False, list, refuse, lambda *_: None)
    probes.start()
    assert tried.wait(PATIENCE_S)
    probes.stop()
    assert caplog.messages == []


def test_a_wired_host_says_why_it_reads_no_radio(install: Install) -> None:
    """Each probe that is off has its reason; on a server radio is not even asked for."""
    install("mmcli", "echo '{\"modem-list\":[]}'")
    host = Host(wifi=True, modem=True, throttling=True, time_sync=True)
    host.probes.start()
    host.wait_for(lambda: len(host.facts) == 4)
    host.probes.stop()
    assert {name for name, facts in host.facts.items() if not facts["on"]} == {"wifi", "modem", "throttling", "time_sync"}
    assert host.facts["modem"]["reason"] == "ModemManager knows no modem"
    json.dumps(host.facts)
