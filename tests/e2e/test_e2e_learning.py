"""The toolkit's own app: SqueezeNet on real digits."""

from pathlib import Path

import pytest

from analysis.derive import derive
from analysis.load import Run, load_run
from tests.e2e.conftest import fltestbed, write_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two clients, two rounds, a part of the digits, early stopping in reach, compute paced."""
    folder = tmp_path_factory.mktemp("learning")
    config = write_experiment(
        folder, clients=2, rounds=2, data={"samples": 240}, training={"threads": 1, "batch_size": 16},
        pacing={"seconds_per_epoch": [0.1, 1.5]}, probes={"interval_s": 0.2},
    )  # fmt: skip
    done = fltestbed("run", config, "--link", "ethernet", "--backend", "tbf", "--runs", folder, "--name", "learning")
    assert done.status == 0, done.out + done.err
    assert "round 2/2, 2/2 clients, accuracy" in done.out
    return derive(load_run(folder / "learning"))


def test_training_and_evaluation_are_apart(run: Run) -> None:
    """Each client trains and evaluates on validation and test data before the upload, in every round."""
    rows = run["phases"]
    for number in (1, 2):
        for client in ("client-0", "client-1"):
            own = rows[(rows["round"] == number) & (rows["client"] == client)]
            assert list(own[own["phase"] == "train"]["status"]) == ["ok"]
            assert set(own[own["phase"] == "evaluate"]["detail"]) == {"validation", "test"}
    assert sorted(rows[rows["phase"] == "server_evaluate"]["round"]) == [0, 1, 2]


def test_the_slow_client_ends_each_round_by_training(run: Run) -> None:
    """The client that is paced slower is the straggler, and training is why."""
    rounds = run["rounds"][run["rounds"]["round"] > 0]
    assert list(rounds["ended_by"]) == ["client-1", "client-1"]
    assert list(rounds["ended_in_phase"]) == ["train", "train"]
    train = run["clients"].set_index("client")["train_s"]
    assert (train["client-1"] >= 1.5).all()


def test_accuracy_of_the_global_model_is_recorded(run: Run) -> None:
    """The server evaluates the model before the first round and after each."""
    rows = run["metrics"]
    accuracy = rows[(rows["source"] == "server") & (rows["metric"] == "accuracy")]
    assert sorted(accuracy["round"]) == [0, 1, 2]
    assert run["rounds"]["accuracy"].notna().all()


def test_the_model_and_both_hosts_are_described(run: Run) -> None:
    """The manifest has the model's size, what each host is, and that compute was paced."""
    manifest = run.manifest.data
    assert manifest["model"] == {"parameters": 727_626, "tensors": 52, "bytes": 727_626 * 4}
    assert set(manifest["hosts"]) == {"server", "client-0", "client-1"}
    assert manifest["hosts"]["client-0"]["interface"] == "eth0"
    assert manifest["paced"] is True


def test_hosts_were_watched(run: Run) -> None:
    """The system probe of the server and of each client has left rows with memory and bytes, placed on the time line."""
    rows = run["system"]
    assert set(rows["host"]) == {"server", "client-0", "client-1"}
    clients = rows[rows["host"] != "server"]
    assert (clients.groupby("host")["process_memory_bytes"].max() > 200e6).all()  # torch is in there
    assert rows["time_s"].notna().all()
    assert (rows["probes_cpu_s"] > 0).all()
    assert (clients["tx_bytes"] > 0).any()


def test_nearly_all_time_is_explained(run: Run) -> None:
    """What the phases leave unexplained is small: below 20 ms or 1% of the round for most."""
    clients = run["clients"].merge(run["rounds"][["round", "duration_s"]], on="round")
    bar = (clients["duration_s"] * 0.01).clip(lower=0.02)
    assert (clients["unexplained_s"].abs() < bar).mean() >= 0.5


def test_tables_and_figures_come_out_of_it(run: Run, tmp_path: Path) -> None:
    """`summary` and `plot` work on the folder alone."""
    table = fltestbed("summary", run.path)
    assert table.status == 0
    assert "learning" in table.out
    drawn = fltestbed("plot", run.path, "-o", tmp_path)
    assert drawn.status == 0, drawn.err
    assert {"anatomy.png", "transfers.png", "accuracy.png", "timeline.png"} <= {file.name for file in tmp_path.iterdir()}
