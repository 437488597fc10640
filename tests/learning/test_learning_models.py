"""Models by name."""

import sys
from pathlib import Path

import pytest
import torch

from fltestbed.errors import ConfigError
from fltestbed.learning.models import BUILDERS, build_model
from fltestbed.learning.names import MODELS, is_builtin_model


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [("squeezenet", 727_626, 52), ("resnet18", 11_181_642, 122), ("mobilenet_v3_small", 1_528_106, 244), ("cnn", 33_834, 8)],
)
def test_each_model_has_its_known_size_and_takes_small_images(name: str, parameters: int, tensors: int) -> None:
    """The number of parameters and of tensors is what the documentation says, and 32 x 32 pixels give one logit a class."""
    model = build_model(name, 10, seed=1).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_list_of_builtin_models_is_whole() -> None:
    """The torch-free list that decides about trust names exactly the models that can be built."""
    assert tuple(BUILDERS) == MODELS
    assert is_builtin_model("squeezenet")
    assert not is_builtin_model("package.module:build")


def test_squeezenet_passes_negative_logits() -> None:
    """Without the last ReLU a fresh SqueezeNet gives logits of both signs, so a gradient can pass for every class."""
    logits = build_model("squeezenet", 10, seed=1).eval()(torch.rand(8, 3, 32, 32))
    assert logits.min() < 0 < logits.max()


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Same seed, same weights, whatever PyTorch's generator did before; and that generator is left as it was."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_model("cnn", 10, seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    again, other = build_model("cnn", 10, seed=7).state_dict(), build_model("cnn", 10, seed=8).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_function_of_an_installed_module_builds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`module:function` is called with the number of classes."""
    (tmp_path / "own_models.py").write_text(
        "from torch import nn\ndef flat(n): return nn.Linear(3, n)\ndef bad(n): return n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build_model("own_models:flat", 4, seed=1).weight.shape == (4, 3)
    with pytest.raises(ConfigError, match=r"'own_models:bad' returned int, not a torch.nn.Module"):
        build_model("own_models:bad", 4, seed=1)
    with pytest.raises(ConfigError, match=r'own_models has no flatt; did you mean "flat"\?'):
        build_model("own_models:flatt", 4, seed=1)
    del sys.modules["own_models"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "squeezent",
            r'model.name: unknown name \'squeezent\'; did you mean "squeezenet"\?; use one of squeezenet, resnet18',
        ),
        ("vgg", r"model.name: unknown name 'vgg'; use one of .*, or an installed module:object"),
        ("no_such_module_here:build", r"importing no_such_module_here failed on this host: ModuleNotFoundError"),
        ("math:pi", r"model.name: 'math:pi' is not a function"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(name: str, message: str) -> None:
    """The message names the key, the value and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        build_model(name, 10, seed=1)
