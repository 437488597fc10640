"""A model of plain arrays, by one of Flower's strategies or by a loop of the app's own."""

import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp, strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the configured number of rounds."""
    parameters = int(context.run_config["parameters"])
    noise = np.random.default_rng()
    model = ArrayRecord([noise.standard_normal(parameters // 4, dtype=np.float32) for _ in range(4)])
    if context.run_config["own-loop"]:
        train_without_a_strategy(grid, model)
        return
    nodes = int(context.run_config["min-nodes"])
    chosen = getattr(strategy, str(context.run_config["strategy"]))
    combining = chosen(min_available_nodes=nodes, min_train_nodes=nodes, min_evaluate_nodes=nodes)
    combining.start(grid, model, num_rounds=int(context.run_config["num-server-rounds"]))


def train_without_a_strategy(grid: Grid, model: ArrayRecord) -> None:
    """Two rounds with the Grid alone: send, ask until all have answered, average."""
    for number in (1, 2):
        content = RecordDict({"arrays": model, "config": ConfigRecord({"server-round": number})})
        messages = [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
        waiting = set(grid.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            arrived = list(grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
            time.sleep(0.01)
        models = [reply.content["arrays"].to_numpy_ndarrays() for reply in replies if not reply.has_error()]
        model = ArrayRecord([np.mean(arrays, axis=0) for arrays in zip(*models, strict=True)])
