"""Models by name. All take images of shape (batch, 3, 32, 32) and return logits of shape (batch, classes).

Parameters with 10 classes: squeezenet 727,626 in 52 tensors; resnet18 11,181,642; mobilenet_v3_small 1,528,106; cnn 33,834.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fltestbed.errors import ConfigError
from fltestbed.learning.names import MODELS, is_module_object, load_object, unknown_name
from fltestbed.learning.vision import torchvision


def _squeezenet(num_classes: int) -> Any:
    model = torchvision.models.squeezenet1_1(num_classes=num_classes)
    # torchvision ends with convolution, ReLU, mean. From scratch on small images that ReLU dies: every logit becomes 0 and
    # no gradient passes. It has no parameters, so the model's size is the same without it.
    model.classifier[2] = nn.Identity()
    return model


def _cnn(num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, num_classes))


BUILDERS: dict[str, Callable[[int], Any]] = {
    "squeezenet": _squeezenet,
    "resnet18": lambda num_classes: torchvision.models.resnet18(num_classes=num_classes),
    "mobilenet_v3_small": lambda num_classes: torchvision.models.mobilenet_v3_small(num_classes=num_classes),
    "cnn": _cnn,
}


def build_model(name: str, num_classes: int, seed: int) -> nn.Module:
    """Build a model with initial weights that depend on `seed` alone.

    Parameters
    ----------
    name : str
        One of `fltestbed.learning.names.MODELS`, or an installed ``module:function`` that takes the number of classes and
        returns a `torch.nn.Module`. The latter runs code of that module: a client asks for trust first.
    num_classes : int
        Number of logits.
    seed : int
        Seeds PyTorch's generator, which is put back afterwards.

    Raises
    ------
    ConfigError
        The name is unknown, cannot be imported, or does not lead to a model.
    """
    if name in BUILDERS:
        build = BUILDERS[name]
    elif is_module_object(name):
        build = load_object("model.name", name)
    else:
        raise unknown_name("model.name", name, MODELS)
    if not callable(build):
        raise ConfigError(f"model.name: {name!r} is not a function that takes the number of classes; name one that does")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(num_classes)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.name: {name!r} returned {type(model).__name__}, not a torch.nn.Module; name a function that makes one"
        )
    return model
