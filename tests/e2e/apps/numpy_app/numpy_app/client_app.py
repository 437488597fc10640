"""Training is noise: fresh random weights for each round, so that nothing is sent only once."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Add noise to the model."""
    partition = int(context.node_config["partition-id"])
    failing = int(context.run_config["fail-in-round"])
    if str(partition) == context.run_config["fail-on"] and failing in (0, msg.content["config"]["server-round"]):
        raise RuntimeError("told to fail")
    time.sleep(float(context.run_config["seconds"]))
    noise = np.random.default_rng()
    model = [
        array + noise.standard_normal(array.shape, dtype=array.dtype) for array in msg.content["arrays"].to_numpy_ndarrays()
    ]
    metrics = MetricRecord({
        "num-examples": 10 + partition, "train-loss": 1.0 / (1 + partition), "first-parameter": float(model[0][0]),
    })  # fmt: skip
    return Message(RecordDict({"arrays": ArrayRecord(model), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Report a loss."""
    metrics = MetricRecord({"num-examples": int(context.node_config["num-partitions"]), "loss": 0.5})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
