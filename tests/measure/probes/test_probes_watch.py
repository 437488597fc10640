"""Each probe is read at its interval, whatever becomes of the others, and says once when it fails."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fltestbed.clock import Clock
from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.probe import Row
from fltestbed.measure.probes.watch import Watch
from fltestbed.server.facts import ProbeFacts

CLOCK = Clock(raw_ns=lambda: 77)
PATIENCE_S = 30.0


class Script:
    """A probe whose readings are written down beforehand; the last one repeats."""

    interval_s = 0.01

    def __init__(
        self, *readings: Row | Exception, table: str = "radio", joins: bool = False, opens: Exception | None = None,
        closes: Exception | None = None,
    ) -> None:  # fmt: skip
        self.name = "script"
        self.table = table
        self.joins = joins
        self._readings = list(readings)
        self._opens = opens
        self._closes = closes
        self.read_count = 0

    def open(self) -> dict[str, Any]:
        """As written down."""
        if self._opens:
            raise self._opens
        return {"reads": "a script"}

    def read(self) -> list[Row]:
        """The next reading."""
        self.read_count += 1
        reading = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        if isinstance(reading, Exception):
            raise reading
        return [reading]

    def close(self) -> dict[str, Any]:
        """As written down."""
        if self._closes:
            raise self._closes
        return {"seen": []}


class Listener:
    """What a watch has said."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def hear(self, fact: dict[str, Any]) -> None:
        """Keep it."""
        with self._changed:
            self.said.append(fact)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it is true of what was said."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)

    def of(self, key: str) -> list[dict[str, Any]]:
        """Facts that have this key: row, probe or trouble."""
        return [fact for fact in self.said if key in fact]


def watch(heard: Listener, **probes: Script) -> Watch:
    """A watch over scripts, started."""
    started = Watch({name: (lambda _, probe=probe: probe) for name, probe in probes.items()}, heard.hear, CLOCK, 1.0)  # type: ignore[misc]
    started.start()
    return started


@pytest.fixture
def heard() -> Listener:
    """Nothing was said yet."""
    return Listener()


def test_rows_are_stamped_and_go_to_their_table(heard: Listener) -> None:
    """With the raw clock of the moment before the reading."""
    watching = watch(heard, wifi=Script({"rssi_dbm": -52.0}))
    heard.wait_for(lambda: len(heard.of("row")) >= 2)
    watching.stop()
    assert heard.of("row")[0] == {"row": "radio", "raw_ns": 77, "rssi_dbm": -52.0}


def test_the_manifest_is_told_at_the_start_and_at_the_end(heard: Listener) -> None:
    """What is read, and at the end how often, what it cost and what `close` says."""
    script = Script({"channel": 1})
    watching = watch(heard, wifi=script)
    heard.wait_for(lambda: len(heard.of("row")) >= 3)
    watching.stop()
    first, last = heard.of("probe")
    assert first == {"probe": "wifi", "reads": "a script", "on": True, "interval_s": 0.01}
    assert last["samples"] == script.read_count == len(heard.of("row"))
    assert (last["failures"], last["seen"], last["on"]) == (0, [], True)
    assert 0 < last["cpu_s_per_sample"] < 1
    assert last["longest_s"] > 0


def test_nothing_to_read_is_a_reason_and_no_trouble(heard: Listener) -> None:
    """The others are read all the same."""
    watching = watch(heard, modem=Script({}, opens=HostError("no modem")), wifi=Script({"channel": 1}))
    heard.wait_for(lambda: bool(heard.of("row")) and any(fact["probe"] == "modem" for fact in heard.of("probe")))
    watching.stop()
    assert {"probe": "modem", "on": False, "reason": "no modem"} in heard.said
    assert heard.of("trouble") == []


def test_a_long_reason_is_shortened_to_what_the_server_takes(heard: Listener) -> None:
    """Three daemons that explain themselves at length must not cost the client its run."""
    watching = watch(
        heard, time_sync=Script({}, opens=HostError("; ".join(["chrony: " + "506 Cannot talk to daemon " * 9] * 3)))
    )
    heard.wait_for(lambda: bool(heard.of("probe")))
    watching.stop()
    facts = ProbeFacts.model_validate({key: value for key, value in heard.of("probe")[0].items() if key != "probe"})
    assert facts.reason is not None
    assert facts.reason.startswith("chrony: 506 Cannot talk")
    assert facts.reason.endswith(" ...")


def test_a_probe_that_cannot_be_opened_is_trouble(heard: Listener) -> None:
    """Said once, and it is off."""
    watching = watch(heard, modem=Script({}, opens=TestbedError("mmcli: no answer within 5 s")))
    heard.wait_for(lambda: bool(heard.of("trouble")))
    watching.stop()
    assert heard.said == [
        {"probe": "modem", "on": False, "reason": "mmcli: no answer within 5 s"},
        {"trouble": "modem", "reason": "mmcli: no answer within 5 s"},
    ]


def test_failures_in_mid_run_are_said_once_and_overcome(heard: Listener) -> None:
    """Two failures, then rows again; the manifest counts them and keeps the last reason."""
    script = Script({"channel": 1}, TestbedError("hangs"), TestbedError("is garbage"), {"channel": 6})
    watching = watch(heard, wifi=script)
    heard.wait_for(lambda: {"row": "radio", "raw_ns": 77, "channel": 6} in heard.said)
    watching.stop()
    assert heard.of("trouble") == [{"trouble": "script", "reason": "hangs"}]
    assert (heard.of("probe")[-1]["failures"], heard.of("probe")[-1]["failure"]) == (2, "is garbage")


def test_a_probe_that_goes_on_failing_is_asked_less_and_less(heard: Listener) -> None:
    """Each pause is twice as long as the one before, so that 12 tries take 2 ** 12 intervals."""
    script = Script(TestbedError("gone"))
    other = Script({"channel": 1})
    watching = watch(heard, modem=script, wifi=other)
    heard.wait_for(lambda: other.read_count >= 30)
    watching.stop()
    assert 1 <= script.read_count <= 12
    assert len(heard.of("trouble")) == 1


def test_columns_that_join_wait_for_the_next_row_of_the_system(heard: Listener) -> None:
    """They are in one row, under its stamp, and not in the row after."""
    flags = Script({"throttled_flags": "0x1"}, TestbedError("vcgencmd is gone"), table="system", joins=True)
    system = Script({"cpu_percent": 1.0}, table="system")
    ready = threading.Event()

    def read_later() -> list[Row]:
        assert ready.wait(PATIENCE_S)
        return Script.read(system)

    system.read = read_later  # type: ignore[method-assign]
    watching = watch(heard, throttling=flags, system=system)
    heard.wait_for(lambda: bool(heard.of("trouble")))
    ready.set()
    heard.wait_for(lambda: len(heard.of("row")) >= 2)
    watching.stop()
    assert heard.of("row")[0] == {"row": "system", "raw_ns": 77, "cpu_percent": 1.0, "throttled_flags": "0x1"}
    assert heard.of("row")[1] == {"row": "system", "raw_ns": 77, "cpu_percent": 1.0}


def test_a_host_that_could_not_be_left_as_it_was_is_trouble(heard: Listener) -> None:
    """The refresh rate of a modem that has gone, for instance."""
    watching = watch(heard, modem=Script({"channel": 1}, closes=TestbedError("couldn't find modem")))
    heard.wait_for(lambda: bool(heard.of("row")))
    watching.stop()
    assert heard.of("trouble") == [{"trouble": "modem", "reason": "at the end: couldn't find modem"}]
    assert heard.of("probe")[-1]["failure"] == "couldn't find modem"
