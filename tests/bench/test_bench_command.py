"""`fltestbed bench` as a user meets it."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fltestbed.bench.report import Bar
from fltestbed.bench.results import RoundReport
from fltestbed.cli.bench.round import round as bench_round
from fltestbed.errors import ConfigError
from tests.e2e.conftest import fltestbed


def test_bench_round_prints_every_figure_beside_its_bar(tmp_path: Path) -> None:
    """A short run ends with the status that its bars give, whatever the timing; the report says the same as the table."""
    file = tmp_path / "round.json"
    done = fltestbed(
        "bench", "round", "--links", "loopback", "--sizes", "tiny", "--contenders", "bundle,objects,grpc,raw",
        "--rounds", "2", "--repetitions", "1", "--json", file,
    )  # fmt: skip
    assert done.status in {0, 1}, done.err
    assert file.is_file(), done.err
    data = json.loads(file.read_text())
    verdicts = [bar.pop("holds") for bar in data["bars"]]
    assert done.status == (0 if data.pop("holds") else 1)
    assert (data.pop("benchmark"), data.pop("schema_version")) == ("round", 1)
    report = TypeAdapter(RoundReport).validate_python(data, extra="forbid")
    assert verdicts == [bar.holds for bar in report.bars]
    assert report.holds is (done.status == 0)

    setting = report.settings[0]
    assert (setting.link, setting.size, setting.tensors) == ("loopback", "tiny", 4)
    counts = {
        name: tuple(0 if spread is None else spread.count for spread in (found.round, found.downlink, found.uplink))
        for name, found in setting.contenders.items()
    }
    assert counts == {"bundle": (2, 4, 4), "objects": (2, 4, 4), "grpc": (2, 0, 0), "raw": (0, 4, 4)}
    assert min(setting.down_bytes, setting.up_bytes) > setting.model_bytes
    assert min(setting.turnaround_s, setting.gap_s) > 0
    assert_printed(report.bars, done.out)


def assert_printed(bars: tuple[Bar, ...], out: str) -> None:
    transfers = [f"{direction}: {name} / raw" for direction in ("downlink", "uplink") for name in ("bundle", "objects")]
    assert [bar.what for bar in bars] == ["round: bundle / grpc", *transfers]
    for bar in bars:
        line = next(line for line in out.splitlines() if bar.what in line)
        assert f"{bar.figure:.4g}" in line
        assert ("none, shown" if bar.limit is None else f"<= {bar.limit:g}") in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sizes": "small,huge"}, "--sizes small,huge: huge is not known; choose of tiny, small, large"),
        ({"contenders": "bundle,http"}, "--contenders bundle,http: http is not known"),
        ({"links": "loopback,6g"}, "6g: neither a file nor a shipped name"),
        ({"links": ","}, "--links: is empty"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_starts(options: dict[str, str], says: str) -> None:
    """The message names the option, the value and what is allowed."""
    given = {"links": "loopback", "sizes": "tiny", "contenders": "bundle"} | options
    with pytest.raises(ConfigError) as raised:
        bench_round(**given)  # type: ignore[arg-type]  # the other options have typer's defaults
    assert says in str(raised.value)
