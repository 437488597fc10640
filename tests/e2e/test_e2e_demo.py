"""The newcomer's command, with less to do."""

from pathlib import Path

from analysis.load import load_run
from tests.e2e.conftest import fltestbed, write_experiment


def test_the_demo_compares_three_links(tmp_path: Path) -> None:
    """Three complete runs, a table, figures, and the paths of what to look at; the slower link has the slower uplink."""
    config = write_experiment(
        tmp_path, clients=1, rounds=2, model={"name": "cnn"}, data={"name": "synthetic", "samples": 120},
        training={"threads": 1},
    )  # fmt: skip
    (tmp_path / "runs" / "test-wifi").mkdir(parents=True)  # an earlier demo's, which is not touched
    done = fltestbed("demo", "--config", config, "--runs", tmp_path / "runs", "--plots", tmp_path / "plots")
    assert done.status == 0, done.out + done.err
    runs = [tmp_path / "runs" / f"test-2-{link}" for link in ("5g", "wifi", "ethernet")]
    for run in runs:
        assert load_run(run).manifest.data["status"] == "complete"
        assert str(run) in done.out
    assert list((tmp_path / "runs" / "test-wifi").iterdir()) == []
    assert "5g uplink over ethernet's" in done.out
    assert (tmp_path / "plots" / "test-2" / "anatomy.png").stat().st_size > 10_000
    assert "done in" in done.out
