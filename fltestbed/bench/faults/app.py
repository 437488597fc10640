"""The Flower app of `fltestbed bench faults`: FedAvg over noise, with gates, and with a record of all that it moved.

Each reply and each round's model lie as files in the folder `store` of the app's own folder of gates and records: so what
the strategy made of the replies can be computed again, from what the clients themselves say that they sent.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fltestbed.bench.app_folder import make_app_folder
from fltestbed.bench.faults.gate import aggregate_gate, configure_gate, pass_gate, train_gate

TENSORS = 4
STORE = "store"
WEIGHT = "num-examples"

client_app = ClientApp()
server_app = ServerApp()


def write_app(folder: Path, shared: Path, *, rounds: int, parameters: int, seconds: float = 0.0) -> Path:
    """Make the app's folder.

    Parameters
    ----------
    folder : Path
        Is made.
    shared : Path
        Folder of the gates; replies and models are stored below it.
    rounds : int
    parameters : int
        Of the model, float32 each, in `TENSORS` tensors.
    seconds : float
        What training takes.
    """
    (shared / STORE).mkdir(parents=True, exist_ok=True)
    return make_app_folder(
        folder, "fltestbed-faults", "Noise in place of training, and gates",
        server_app=f"{__name__}:server_app", client_app=f"{__name__}:client_app",
        config={"shared": str(shared), "rounds": rounds, "parameters": parameters, "seconds": seconds},
    )  # fmt: skip


def model_file(shared: Path, round_: int) -> Path:
    """The global model after a round; 0 is the one before the first."""
    return shared / STORE / f"model-{round_}.npz"


def reply_file(shared: Path, message_id: str) -> Path:
    """What was sent in answer to a message: the tensors in order, and last its weight."""
    return shared / STORE / f"reply-{message_id}.npz"


def store(file: Path, arrays: list[NDArray[Any]]) -> None:
    """Write arrays; the file has its name when it is whole."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    with unfinished.open("wb") as opened:
        np.savez(opened, *arrays)
    unfinished.replace(file)


@client_app.train()
def train(msg: Message, context: Context) -> Message:
    """Add noise to the model, whatever time that takes, and keep what is sent."""
    shared, partition = Path(str(context.run_config["shared"])), int(context.node_config["partition-id"])
    round_ = int(msg.content.config_records["config"]["server-round"])  # type: ignore[arg-type]  # as FedAvg sets it
    pass_gate(shared, train_gate(round_, partition))
    time.sleep(float(context.run_config["seconds"]))
    noise = np.random.default_rng()
    model = msg.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = [array + noise.standard_normal(array.shape, dtype=np.float32) for array in model]
    weight = 10 + partition
    store(reply_file(shared, msg.metadata.message_id), [*arrays, np.array(weight)])
    metrics = MetricRecord({WEIGHT: weight})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)


class _StoredFedAvg(FedAvg):
    """Flower's FedAvg, which keeps the model of each round and has a gate before its messages."""

    def __init__(self, shared: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._shared = shared

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """See Flower."""
        store(model_file(self._shared, server_round - 1), arrays.to_numpy_ndarrays())
        pass_gate(self._shared, configure_gate(server_round))
        return super().configure_train(server_round, arrays, config, grid)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, without evaluation, with whoever is there."""
    config = context.run_config
    shared, rounds, size = Path(str(config["shared"])), int(config["rounds"]), int(config["parameters"]) // TENSORS
    strategy = _StoredFedAvg(shared, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, weighted_by_key=WEIGHT)
    aggregate = strategy.aggregate_train

    def gated(server_round: int, replies: Iterable[Message]) -> Any:
        pass_gate(shared, aggregate_gate(server_round))
        return aggregate(server_round, replies)

    gated.reads_no_replies = True  # type: ignore[attr-defined]  # so replies are added up while they arrive, as ever
    strategy.aggregate_train = gated  # type: ignore[method-assign]  # an override in the class could read them
    noise = np.random.default_rng()
    model = ArrayRecord([noise.standard_normal(size, dtype=np.float32) for _ in range(TENSORS)])
    result = strategy.start(grid, model, num_rounds=rounds)
    store(model_file(shared, rounds), result.arrays.to_numpy_ndarrays())
