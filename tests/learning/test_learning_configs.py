"""The experiments that are shipped."""

from pathlib import Path

from fltestbed.config import load_experiment
from fltestbed.learning.data import load_client_data, load_server_data
from fltestbed.learning.early_stopping import check_reported
from fltestbed.learning.names import is_builtin_model
from fltestbed.learning.strategies import build_strategy


def test_the_demo_fits_its_bars() -> None:
    """At least eight rounds with four clients of SqueezeNet on digits, and data for every one of them."""
    demo = load_experiment(Path("demo"))
    assert (demo.model.name, demo.data.name, demo.clients) == ("squeezenet", "digits", 4)
    assert demo.rounds >= 8
    build_strategy(demo)
    sizes = [len(load_client_data(demo.data, demo.seed, client, demo.clients).train) for client in range(demo.clients)]
    assert min(sizes) > 250
    assert len(load_server_data(demo.data, demo.seed)) > 300


def test_the_papers_experiment_is_the_papers() -> None:
    """SqueezeNet on CIFAR-10 with FedAvg, validation and test on the clients, and an early stop that somebody reports."""
    paper = load_experiment(Path("paper"))
    assert is_builtin_model(paper.model.name)
    assert (paper.model.name, paper.data.name, paper.strategy.name) == ("squeezenet", "cifar10", "FedAvg")
    assert paper.evaluation.client == ("validation", "test")
    assert paper.early_stopping is not None
    check_reported(paper.early_stopping, paper.evaluation)
    build_strategy(paper)
