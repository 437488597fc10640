"""Any Flower app gives the same files."""

from pathlib import Path

import pytest

from analysis.derive import derive
from analysis.load import Run, load_run
from fltestbed.measure.schema import AGGREGATE_OVERLAP, TABLES
from fltestbed.server import checkpoint
from tests.e2e.conftest import fltestbed, numpy_app, write_experiment


def test_an_unmodified_app_gives_every_file(app_run: Run) -> None:
    """The run is complete and has every table of the dictionary, without a warning of the reader."""
    assert app_run.manifest.data["status"] == "complete"
    written = {file.name for file in app_run.path.glob("*.csv")}
    assert set(TABLES) <= written
    assert app_run.warnings == ()
    assert len(app_run["rounds"]) == 3
    assert list(app_run["rounds"]["clients_replied"]) == [3, 3, 3]


def test_every_client_and_round_has_its_phases(app_run: Run) -> None:
    """Each client passes through every phase in each round, for training and for evaluation; the server aggregates both."""
    rows = app_run["phases"]
    assert set(rows["status"]) == {"ok"}
    own = rows[rows["client"].notna() & (rows["client"] != "")]
    per_task = own.groupby(["round", "client", "message_type"])["phase"].agg(lambda names: " ".join(sorted(names)))
    assert len(per_task) == 3 * 3 * 2
    for message_type, of_type in per_task.groupby(level="message_type"):
        own_phase = str(message_type)
        names = ["configure", "queue", "downlink", "deserialize", own_phase, "serialize", "uplink", "collect", "wait"]
        assert list(of_type) == [" ".join(sorted(names))] * 9
    assert len(rows[rows["phase"] == "aggregate"]) == 3 * 2


def test_no_duration_of_one_host_is_negative(app_run: Run) -> None:
    """Two stamps of one host are in the order in which things happened."""
    rows = app_run["phases"]
    same = rows[rows["start_host"] == rows["end_host"]]
    assert len(same) > 0
    assert (same["end_raw_ns"] >= same["start_raw_ns"]).all()


def test_metrics_of_clients_and_aggregates_are_recorded(app_run: Run) -> None:
    """What the app reports is there per client and aggregated, weighted by examples."""
    rows = app_run["metrics"]
    losses = rows[(rows["metric"] == "train-loss") & (rows["round"] == 1)]
    assert sorted(losses[losses["source"] == "client"]["value"]) == [pytest.approx(1 / 3), pytest.approx(1 / 2), 1.0]
    aggregate = losses[losses["source"] == "aggregate"]["value"].item()
    assert aggregate == pytest.approx((10 * 1 + 11 / 2 + 12 / 3) / 33)


def test_a_stock_supernode_takes_part_beside_two_of_ours(tmp_path: Path) -> None:
    """Its transfers are timed from the server; what the server cannot see says so; all three replies count. Over TLS, and
    with the keys that the run has made and registered for each of them.
    """
    config = write_experiment(tmp_path, clients=3, server={"tls": True, "node_keys": "of the run"})
    app = numpy_app(tmp_path, num_server_rounds=1)
    done = fltestbed(
        "run", config, "--link", "ethernet", "--backend", "tbf", "--app", app, "--supernodes", "1",
        "--runs", tmp_path, "--name", "mixed",
    )  # fmt: skip
    assert done.status == 0, done.out + done.err
    run = derive(load_run(tmp_path / "mixed"))
    security = run.manifest.data["security"]
    assert security["registered_nodes"] == ["client-0", "client-1", "client-2"]
    assert security["tls"]["certificate_addresses"] == ["10.77.0.1"]
    rows = run["phases"]
    stock = rows[(rows["client"] == "supernode-0") & (rows["message_type"] == "train")]
    status = dict(zip(stock["phase"], stock["status"], strict=True))
    assert status["downlink"] == status["uplink"] == status["collect"] == "ok"
    assert status["train"] == status["serialize"] == "missing"
    assert set(rows["client"].dropna()) >= {"client-0", "client-1", "supernode-0"}
    assert run["rounds"]["clients_replied"].item() == 3


def test_a_strategy_that_chooses_gets_whole_replies(tmp_path: Path) -> None:
    """Krum's model is that of one client, as this one sent it; no reply was added up while others were awaited."""
    config = write_experiment(tmp_path, clients=3)
    app = numpy_app(tmp_path, num_server_rounds=2, min_nodes=3, strategy="Krum")
    done = fltestbed(
        "run", config, "--link", "ethernet", "--backend", "tbf", "--app", app, "--runs", tmp_path, "--name", "krum"
    )
    assert done.status == 0, done.out + done.err
    run = load_run(tmp_path / "krum")
    assert set(run["phases"]["status"]) == {"ok"}
    metrics = run["metrics"]
    assert AGGREGATE_OVERLAP not in set(metrics["metric"])
    sent = metrics[(metrics["metric"] == "first-parameter") & (metrics["source"] == "client") & (metrics["round"] == 2)]
    assert len(sent) == 3
    newest = checkpoint.find(tmp_path / "krum" / "checkpoints")
    assert newest.path is not None
    assert newest.round == 2
    first = next(iter(checkpoint.load(newest.path).arrays.values())).numpy()[0]
    assert [pytest.approx(value, rel=1e-6) == first for value in sent["value"]].count(True) == 1


def test_an_app_without_a_strategy_is_timed_and_may_fail(tmp_path: Path) -> None:
    """An app that loops over the Grid by itself has every phase; what it does between its rounds is its aggregation. An
    exception in one ClientApp costs its own training, is in the record with its reason, and nothing else.
    """
    config = write_experiment(tmp_path, clients=2)
    app = numpy_app(tmp_path, own_loop=True, fail_on="1", fail_in_round=2)
    done = fltestbed(
        "run", config, "--link", "ethernet", "--backend", "tbf", "--app", app, "--runs", tmp_path, "--name", "loop"
    )
    assert done.status == 0, done.out + done.err
    rows = load_run(tmp_path / "loop")["phases"]
    (failed,) = rows[rows["status"] != "ok"].to_dict("records")
    assert (failed["round"], failed["client"], failed["phase"], failed["status"]) == (2, "client-1", "train", "failed")
    assert failed["detail"] == "RuntimeError: told to fail"
    assert list(rows[rows["phase"] == "aggregate"]["detail"]) == [
        "until the app sent its next messages",
        "until the app ended",
    ]
    assert len(rows[rows["phase"] == "wait"]) == 2 * 2
