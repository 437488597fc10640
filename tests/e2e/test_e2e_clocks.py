"""Clocks over two networks, and the benchmark that judges stamps by packets, with the real commands."""

import json
from pathlib import Path

import pytest

from analysis.derive import derive
from analysis.load import load_run
from analysis.mapping import fit
from fltestbed.cli.bench.accuracy import accuracy
from fltestbed.errors import ConfigError
from tests.e2e.conftest import APPS, fltestbed, write_experiment


def test_a_second_network_bounds_the_clocks_more_narrowly(tmp_path: Path) -> None:
    """Both networks are on record; the quiet one's mapping is ten times narrower, and both contain zero, the truth."""
    config = write_experiment(tmp_path, clients=2, clock={"second-network": True, "interval-s": 0.2})
    done = fltestbed("run", config, "--link", "5g", "--app", APPS / "numpy_app", "--runs", tmp_path, "--name", "both")
    assert done.status == 0, done.out + done.err
    run = derive(load_run(tmp_path / "both"))
    assert run.manifest.data["link"]["second_network"] is True
    assert run.manifest.data["hosts"]["client-0"]["clock_interface"] == "quiet0"
    samples = run["clock_samples"]
    widths = {}
    for interface, own in samples[samples["client"] == "client-0"].groupby("interface"):
        mapping = fit(own)
        assert mapping is not None
        offset, half_width = mapping.offset(own["client_send_raw_ns"].to_numpy(dtype="int64"))
        assert (abs(offset) <= half_width).all()
        widths[str(interface)] = float(half_width.mean())
    assert set(widths) == {"5g0", "quiet0"}
    assert widths["5g0"] > 10 * widths["quiet0"]
    assert set(run["clock"]["interface"]) == {"5g0", "quiet0"}
    transfers = run["phases"][run["phases"]["phase"].isin(["downlink", "uplink"])]
    assert (transfers["placement_uncertainty_s"] < 0.005).all()  # phases are placed by the narrower one


def test_bench_accuracy_prints_every_figure_beside_its_bar(tmp_path: Path) -> None:
    """Two transfers each way: eight stamps with their errors, a bar for each; the status is what the bars say."""
    file = tmp_path / "accuracy.json"
    done = fltestbed(
        "bench",
        "accuracy",
        "--links",
        "ethernet",
        "--sizes",
        "mini",
        "--transfers",
        "2",
        "--parts",
        "stamps",
        "--json",
        file,
    )
    assert done.status in {0, 1}, done.err
    data = json.loads(file.read_text())
    assert done.status == (0 if data["holds"] else 1)
    assert len(data["stamps"]) == 8
    assert {len(errors["errors_ms"]) for errors in data["stamps"]} == {2}
    bars = [bar["what"].split()[0] for bar in data["bars"]]
    assert (bars.count("(i)"), bars.count("(ii)")) == (8, 2)
    assert all(bar["what"].split(" within")[0] in done.out for bar in data["bars"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"parts": "stamps,radio"}, "--parts stamps,radio: radio is not known; choose of stamps, clocks, second-network"),
        ({"sizes": "huge"}, "--sizes huge: huge is not known"),
        ({"links": "6g"}, "6g: neither a file nor a shipped name"),
    ],
)
def test_what_is_not_known_to_bench_accuracy_is_refused(options: dict[str, str], says: str) -> None:
    """Before anything starts, with what is allowed."""
    given = {"json": None, "links": "ethernet", "sizes": "mini", "transfers": None, "parts": "stamps", "backend": "auto"}
    with pytest.raises(ConfigError) as raised:
        accuracy(**(given | options))  # type: ignore[arg-type]
    assert says in str(raised.value)
