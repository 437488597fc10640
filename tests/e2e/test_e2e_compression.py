"""A plain Flower app with compressed tensors: neither strategy nor app notices, and the results tell."""

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.derive import derive
from analysis.load import load_run
from analysis.tables import summarise
from tests.e2e.conftest import fltestbed, numpy_app, write_experiment

PARAMETERS = 80_000
PHASES = ("configure", "queue", "downlink", "deserialize", "train", "serialize", "uplink", "collect", "wait")


@pytest.mark.parametrize("transport", ["bundle", "objects"])
def test_an_app_runs_unchanged_with_compressed_tensors(tmp_path: Path, transport: str) -> None:
    """int8 and zstd up, fp16 alone down: less than a quarter of the bytes, and a half; an error norm for each message,
    float32 for the app (which adds noise of the type that it gets), and a summary row that names the compression. Whatever
    carries them, each client is timed on both sides in every phase, and its transfers say what carried them.
    """
    config = write_experiment(
        tmp_path, clients=2, transport=transport, compression={"uplink": "int8", "downlink": "fp16", "uplink_zstd": True}
    )
    app = numpy_app(tmp_path, num_server_rounds=2, parameters=PARAMETERS)
    done = fltestbed(
        "run", config, "--link", "ethernet", "--backend", "tbf", "--app", app, "--runs", tmp_path, "--name", "small"
    )
    assert done.status == 0, done.out + done.err
    run = derive(load_run(tmp_path / "small"))
    assert set(run["phases"]["status"]) == {"ok"}
    of_clients = run["phases"].query("message_type == 'train' and client.notna() and client != ''")
    found = {" ".join(sorted(own["phase"])) for _, own in of_clients.groupby(["round", "client"])}
    assert found == {" ".join(sorted(PHASES))}
    transfers = run["transfers"]
    assert set(transfers["transport"]) == {transport}
    assert len(transfers) == 2 * 2 * 2 * 2  # rounds, clients, training and evaluation, directions
    assert transfers["client_end_raw_ns"].notna().all()
    trained = run["phases"].query("phase == 'uplink' and message_type == 'train'")["message_id"]
    moved = transfers[transfers["message_id"].isin(trained)].groupby("direction")["payload_bytes"].max()
    assert PARAMETERS * 0.8 < moved["uplink"] < PARAMETERS  # int8 alone is a byte each
    assert PARAMETERS * 2 < moved["downlink"] < PARAMETERS * 2.2  # with zstd it would be less than two
    metrics = run["metrics"].set_index("metric")["value"]
    assert len(metrics["uplink-compression-error"]) == 2 * 2
    # Noise of a standard deviation of 1 over +-4.3: a step of 8.6 / 255, an error of step / sqrt(12), over sqrt(1 + 1).
    assert np.all(np.abs(metrics["uplink-compression-error"] - 0.01) < 0.004)
    assert np.all(metrics["downlink-compression-error"].between(1e-5, 5e-4))
    row = summarise([run]).runs[0]
    assert row["compression"] == "up int8 + zstd 3, down fp16"
    assert row["uplink_compression_error"] == pytest.approx(metrics["uplink-compression-error"].mean())
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["compression"] == row["compression"]


def test_stock_supernodes_and_compression_exclude_each_other(tmp_path: Path) -> None:
    """A SuperNode's app could not read what it gets: status 2 before anything starts."""
    config = write_experiment(tmp_path, clients=2, compression={"downlink": "int8"})
    done = fltestbed("run", config, "--link", "ethernet", "--supernodes", "1", "--runs", tmp_path)
    assert done.status == 2
    assert "--supernodes 1: a stock SuperNode does not understand compressed tensors (compression: up none" in done.err
