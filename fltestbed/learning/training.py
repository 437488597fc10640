"""What one client does in a round, without Flower: train, keep the pace, evaluate."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from fltestbed.clock import SYSTEM_CLOCK, Clock
from fltestbed.config import Pacing, Training
from fltestbed.learning.data import Samples

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Scores:
    """How good a model is on some samples: mean cross-entropy, and the fraction of right answers (0 to 1)."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Pacer:
    """Makes a batch or an epoch take at least a given time, so that few cores can play many Pis.

    Attributes
    ----------
    batch_s, epoch_s : float
        Least duration in seconds; 0 leaves it as it is.
    clock : Clock
        Measures what the work itself took (`raw_ns`).
    sleep : callable (seconds) -> None
        Waits for the rest.
    """

    batch_s: float = 0.0
    epoch_s: float = 0.0
    clock: Clock = SYSTEM_CLOCK
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def of_client(cls, pacing: Pacing | None, partition_id: int) -> "Pacer":
        """Return the pace of one client: the lists repeat when there are more clients than values."""
        if pacing is None:
            return cls()
        batch, epoch = pacing.seconds_per_batch or (0.0,), pacing.seconds_per_epoch or (0.0,)
        return cls(batch[partition_id % len(batch)], epoch[partition_id % len(epoch)])

    @contextmanager
    def at_least(self, seconds: float) -> Iterator[None]:
        """Stay in the block until `seconds` have passed since it was entered."""
        start = self.clock.raw_ns()
        yield
        rest = seconds - (self.clock.raw_ns() - start) / 1e9
        if rest > 0:
            self.sleep(rest)


def train(
    model: nn.Module,
    samples: Samples,
    training: Training,
    *,
    seed: int,
    proximal_mu: float = 0.0,
    pacer: Pacer | None = None,
) -> float:
    """Train `model` in place for `training.local_epochs` passes over `samples`.

    Parameters
    ----------
    model : nn.Module
        Takes (batch, 3, 32, 32), returns logits.
    samples : Samples
        At least one.
    training : Training
        Epochs, batch size, optimiser.
    seed : int
        Of the order of the samples and of dropout: the same seed gives the same model on the same machine.
    proximal_mu : float
        Weight of FedProx's proximal term, mu/2 times the squared distance to the model as received (Li et al. 2020, arXiv
        1812.06127); 0 for none.
    pacer : Pacer, optional
        None leaves compute as it is.

    Returns
    -------
    float
        Mean loss over the samples of the last epoch, each taken before its batch's step, without the proximal term.
    """
    pacer = pacer or Pacer()
    optimizer = _optimizer(model, training)
    received = [parameter.detach().clone() for parameter in model.parameters()] if proximal_mu else []
    total = 0.0
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(training.local_epochs):
            total = 0.0
            with pacer.at_least(pacer.epoch_s):
                for index in batches(len(samples), training.batch_size):
                    with pacer.at_least(pacer.batch_s):
                        images, labels = samples.batch(index)
                        optimizer.zero_grad()
                        loss = nn.functional.cross_entropy(model(images), labels)
                        total += loss.item() * len(labels)
                        if proximal_mu:
                            pairs = zip(model.parameters(), received, strict=True)
                            loss = (
                                loss
                                + proximal_mu / 2 * torch.stack([(new - old).square().sum() for new, old in pairs]).sum()
                            )
                        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch
                        optimizer.step()
    return total / len(samples)


def batches(samples: int, batch_size: int) -> list[torch.Tensor]:
    """Cut a random order of `samples` into batches, from PyTorch's generator.

    A last batch of one sample joins the one before it: batch normalisation cannot train on a single sample.
    """
    parts = list(torch.split(torch.randperm(samples), batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def evaluate(model: nn.Module, samples: Samples) -> Scores:
    """Evaluate `model` on `samples` (at least one), without changing it."""
    model.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(samples), _EVALUATION_BATCH):
            images, labels = samples.batch(slice(start, start + _EVALUATION_BATCH))
            logits = model(images)
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(dim=1) == labels).sum())
    return Scores(loss / len(samples), right / len(samples))


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    # fused: one call a step instead of several for each tensor. Measured for SqueezeNet on one core: a batch of 16 in 14 ms
    # instead of 18.
    if training.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        fused=True,
    )
