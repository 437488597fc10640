"""Training, pacing and evaluation without Flower."""

import math

import pytest
import torch
from torch import nn

from fltestbed.clock import Clock
from fltestbed.config import Data, Pacing, Training
from fltestbed.learning.data import Samples, load_client_data
from fltestbed.learning.models import build_model
from fltestbed.learning.training import Pacer, batches, evaluate, train


@pytest.fixture(scope="module")
def digits() -> Samples:
    """Return 64 digits."""
    data = Data.model_validate({"samples": 64, "server-fraction": 0, "validation-fraction": 0, "test-fraction": 0})
    return load_client_data(data, 1, 0, 1).train


def training_of(**keys: object) -> Training:
    return Training.model_validate({key.replace("_", "-"): value for key, value in keys.items()})


@pytest.mark.parametrize(
    ("name", "optimizer", "rate", "epochs"),
    [
        ("squeezenet", "adam", 3e-4, 12),
        ("cnn", "sgd", 0.1, 8),
        ("resnet18", "adam", 1e-3, 2),
        ("mobilenet_v3_small", "adam", 1e-3, 4),
    ],
)
def test_training_lowers_the_loss_on_what_it_saw(
    digits: Samples, name: str, optimizer: str, rate: float, epochs: int
) -> None:
    """A few epochs over 64 digits bring the loss well below that of guessing."""
    model = build_model(name, 10, seed=1)
    keys = {"optimizer": optimizer, "learning_rate": rate, "batch_size": 16, "momentum": 0.5}
    first = train(model, digits, training_of(**keys, local_epochs=1), seed=1)
    last = train(model, digits, training_of(**keys, local_epochs=epochs), seed=2)
    assert last < 0.9 * first


def test_the_same_seed_gives_the_same_model(digits: Samples) -> None:
    """Order of the samples and dropout come from the seed alone, and PyTorch's generator is left as it was."""

    def weights(seed: int) -> torch.Tensor:
        model = build_model("squeezenet", 10, seed=1)
        train(model, digits, training_of(), seed=seed)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    before = torch.random.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_a_proximal_term_holds_the_model_back(digits: Samples) -> None:
    """FedProx: the larger mu, the nearer the trained model stays to the received one."""

    def moved(mu: float) -> float:
        model = build_model("cnn", 10, seed=1)
        start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        training = training_of(optimizer="sgd", learning_rate=0.05, local_epochs=3)
        train(model, digits, training, seed=1, proximal_mu=mu)
        return float((torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - start).norm())

    assert moved(10.0) < 0.5 * moved(0.0)


def test_batches_cover_all_samples_and_none_is_alone() -> None:
    """33 samples in batches of 16 are 16 and 17; a single sample is a batch of its own."""
    parts = batches(33, 16)
    assert [len(part) for part in parts] == [16, 17]
    assert sorted(torch.cat(parts).tolist()) == list(range(33))
    assert [len(part) for part in batches(1, 16)] == [1]


def test_batch_normalisation_survives_an_odd_number_of_samples(digits: Samples) -> None:
    """17 samples in batches of 16: ResNet's last layer of 1 x 1 pixels could not normalise a single one."""
    odd = Samples(digits.images[:17], digits.labels[:17])
    assert math.isfinite(train(build_model("resnet18", 10, seed=1), odd, training_of(batch_size=16), seed=1))


def test_evaluation_is_the_mean_over_all_samples() -> None:
    """By hand: logits (0, ln 3) for each of 300 samples, two thirds of them of class 1."""

    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, math.log(3)]).expand(len(images), 2)

    samples = Samples(torch.zeros(300, 3, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 1] * 100))
    expected = (100 * math.log(4) + 200 * math.log(4 / 3)) / 300
    scores = evaluate(Constant(), samples)
    assert scores.loss == pytest.approx(expected, rel=1e-5)
    assert scores.accuracy == pytest.approx(2 / 3)


class FakeTime:
    """A clock that stands still but for work and sleep."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)

    def pacer(self, batch_s: float = 0.0, epoch_s: float = 0.0) -> Pacer:
        """Make a pacer that lives by this clock."""
        return Pacer(batch_s, epoch_s, Clock(raw_ns=lambda: self.now_ns), self.sleep)


def test_a_block_is_filled_up_to_its_duration() -> None:
    """Work of 0.3 s in a block of 1 s sleeps 0.7 s; work of 2 s sleeps nothing."""
    time = FakeTime()
    for work_ns in (300_000_000, 2_000_000_000):
        with time.pacer().at_least(1.0):
            time.now_ns += work_ns
    assert time.slept == [pytest.approx(0.7)]


def test_each_batch_or_each_epoch_takes_its_time(digits: Samples) -> None:
    """64 samples in batches of 16, two epochs: eight batches, or two epochs, whatever the real compute took."""
    model, training = build_model("cnn", 10, seed=1), training_of(batch_size=16, local_epochs=2)
    by_batch, by_epoch, unpaced = FakeTime(), FakeTime(), FakeTime()
    train(model, digits, training, seed=1, pacer=by_batch.pacer(batch_s=0.25))
    train(model, digits, training, seed=1, pacer=by_epoch.pacer(epoch_s=3.0))
    train(model, digits, training, seed=1, pacer=unpaced.pacer())
    assert by_batch.slept == [0.25] * 8
    assert by_epoch.slept == [3.0] * 2
    assert unpaced.slept == []


def test_a_client_takes_its_value_from_the_list_in_turn() -> None:
    """Client 2 of a list of two has the first value; without pacing nothing waits."""
    pacing = Pacing.model_validate({"seconds-per-epoch": [1.0, 2.5]})
    assert [Pacer.of_client(pacing, client).epoch_s for client in range(3)] == [1.0, 2.5, 1.0]
    assert Pacer.of_client(pacing, 1).batch_s == 0.0
    assert Pacer.of_client(Pacing.model_validate({"seconds-per-batch": [0.5]}), 3).batch_s == 0.5
    assert Pacer.of_client(None, 1) == Pacer()
