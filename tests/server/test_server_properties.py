"""Whatever clients and journals say, checked or refused: no other error, no number that is none, no file elsewhere."""

import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fltestbed.bench.fuzz_targets import told
from fltestbed.config_file import NAME_PATTERN
from fltestbed.errors import RunFolderError
from fltestbed.measure.mapping import ClockSample
from fltestbed.server.collection import _read_journal
from fltestbed.server.facts import FactsError, read_facts, read_kept_replies
from fltestbed.server.host_log import MOST_PATHS
from fltestbed.server.late_facts import read_late_facts
from fltestbed.server.marks import read_marks
from fltestbed.server.roster import JoinRefused
from tests.server.lab import Lab

bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
GOOD: dict[str, Any] = {key: value for text in told()[:3] for key, value in json.loads(text).items()}
READING: dict[str, Any] = {
    "raw_ns": 1, "interface": "wlan0", "technology": "wifi", "rssi_dbm": -60.0, "channel": 6, "tx_bit_rate_bps": 1e6,
}  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**30) | st.just("=1+1"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@bounded
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), anything, max_size=4))
def test_facts_are_whole_or_refused(change: dict[str, Any]) -> None:
    """Any value in the place of any other: stamps that come out are in order and in range, figures are finite."""
    facts = GOOD | change
    for read in (read_late_facts, read_kept_replies, read_marks):
        with contextlib.suppress(FactsError):
            read(facts)
    try:
        reply = read_facts(facts)
    except FactsError:
        return
    stamps = [reply.downlink_end_ns, reply.called_ns, reply.returned_ns, reply.send_ns - reply.connect_ns]
    assert stamps == sorted(stamps)
    assert all(0 <= stamp < 1 << 62 for stamp in stamps)


@bounded
@given(st.lists(st.dictionaries(st.sampled_from(sorted(READING)), anything, max_size=2), max_size=3))
def test_readings_are_finite_or_refused(changes: list[dict[str, Any]]) -> None:
    """NaN, infinity and 1e30 among them: what becomes a row holds numbers that a column may hold."""
    with contextlib.suppress(FactsError):
        for row in read_late_facts({"radio": [READING | change for change in changes]}).radio:
            numbers = [value for value in row.model_dump().values() if isinstance(value, int | float)]
            assert all(math.isfinite(number) and abs(number) < 1 << 62 for number in numbers)


@bounded
@given(
    st.dictionaries(
        st.sampled_from(("name", "link", "interface", "partition", "host", "wall_offset_s")), anything, max_size=3
    )
)
def test_a_join_is_taken_or_refused(lab: Lab, tmp_path: Path, change: dict[str, Any]) -> None:
    """Whoever joins: the manifest stays JSON that everybody reads, names stay names, nothing is written elsewhere."""
    good = {"name": "pi", "link": "5g", "interface": "lo", "partition": 0, "host": {"model": "Pi"}, "wall_offset_s": 0.5}
    try:
        client = lab.roster.join(1, good | change)
    except JoinRefused:
        pass
    else:
        assert re.fullmatch(NAME_PATTERN, client.name)
    json.loads((tmp_path / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_clock_samples_name_few_interfaces(lab: Lab) -> None:
    """Each is remembered for the run: the ninth is told once and left out, the others go on."""
    client = lab.roster.join(
        1, {"name": "pi", "link": "5g", "interface": "lo", "partition": 0, "host": {}, "wall_offset_s": 0.5}
    )
    zero_ns = lab.manifest.zero_raw_ns
    for number in range(20):
        lab.hosts.clock_sample(
            client,
            ClockSample(10 * number, zero_ns + 10 * number + 1, zero_ns + 10 * number + 2, 10 * number + 3),
            "clock",
            f"if{number}",
        )
    assert len(client.paths) == len(lab.rows["clock_samples.csv"]) == MOST_PATHS


@bounded
@given(st.lists(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()), max_size=6))
def test_a_journal_of_anything_is_read(tmp_path: Path, lines: list[bytes]) -> None:
    """Lines that are torn or made up are counted, also those read in part; a file that says whose it is not is refused."""
    file = tmp_path / "run.1.jsonl"
    head = json.dumps({"client": "pi", "link": "5g", "interface": "lo", "transport": "bundle"}).encode()
    file.write_bytes(b"\n".join([head, *lines]))
    found, facts, refused = _read_journal(file)
    assert found["client"]
    assert max(len(facts), refused) <= len(b"\n".join(lines).split(b"\n")) + 1
    file.write_bytes(b"\n".join(lines))
    with contextlib.suppress(RunFolderError):
        assert _read_journal(file)[0]["client"]
