"""Whether each round's model is the average of what arrived, computed again from what the clients say that they sent."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fltestbed.bench.faults.app import model_file, reply_file
from fltestbed.bench.faults.checks import messages

TOLERANCE = 1e-6
"""Relative, per number: an average of float32 is rounded to float32, by at most 6e-8 of it."""
SMALLEST = 1e-6
"""Absolute: noise of variance one, summed up in float64."""


def load_model(shared: Path, round_: int) -> list[NDArray[np.float32]]:
    """The global model after a round, as the ServerApp stored it."""
    with np.load(model_file(shared, round_), allow_pickle=False) as file:
        return [file[name] for name in file.files]


def load_reply(shared: Path, message_id: str) -> tuple[list[NDArray[np.float32]], int]:
    """The tensors of a reply and their weight, as the client stored them before it sent them."""
    with np.load(reply_file(shared, message_id), allow_pickle=False) as file:
        *arrays, weight = (file[name] for name in file.files)
    return arrays, int(weight)


def averaged(shared: Path, message_ids: list[str], before: list[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    """The average of these replies, weighted; of none, the model as it was before."""
    if not message_ids:
        return [array.astype(np.float64) for array in before]
    replies = [load_reply(shared, message_id) for message_id in message_ids]
    total = sum(weight for _, weight in replies)
    average = [np.zeros(array.shape) for array in before]
    for arrays, weight in replies:
        for number, array in enumerate(arrays):
            average[number] += array.astype(np.float64) * weight / total
    return average


def wrong_averages(run: Path, shared: Path) -> tuple[int, list[str]]:
    """How many rounds were looked at, and those whose model is not the average of the replies that the tables call accepted.

    Parameters
    ----------
    run : Path
        The run folder, whose tables say which replies were accepted.
    shared : Path
        Folder in which the app has stored replies and models.
    """
    accepted: dict[int, list[str]] = {}
    for message in messages(run):
        accepted.setdefault(message.round, []).extend([message.message_id] if message.is_accepted else [])
    found = []
    for round_, message_ids in sorted(accepted.items()):
        before, after = load_model(shared, round_ - 1), load_model(shared, round_)
        expected = averaged(shared, message_ids, before)
        if not all(
            np.allclose(array, wanted, rtol=TOLERANCE, atol=SMALLEST) for array, wanted in zip(after, expected, strict=True)
        ):
            worst = max(float(np.abs(array - wanted).max()) for array, wanted in zip(after, expected, strict=True))
            found.append(f"round {round_}: the model is off the average of {len(message_ids)} replies by up to {worst:.2g}")
    return len(accepted), found
