"""What a benchmark sends: models as shapes of their tensors, and fresh random weights for them.

The weights of every round are new and their mantissas random, so nothing is sent only once and nothing compresses.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """One model to send.

    Attributes
    ----------
    name : str
        What `--sizes` calls it.
    shapes : tuple of tuple of int
        Of its float32 tensors.
    rounds : int
        Rounds that are counted in one repetition, unless the caller says otherwise.
    """

    name: str
    shapes: tuple[Shape, ...]
    rounds: int

    @property
    def model_bytes(self) -> int:
        """Bytes of all tensors together."""
        return 4 * sum(math.prod(shape) for shape in self.shapes)


def fresh_weights(shapes: tuple[Shape, ...]) -> list[NDArray[np.float32]]:
    """New random tensors, even in [0, 1)."""
    noise = np.random.default_rng()
    return [noise.random(shape, dtype=np.float32) for shape in shapes]


def squeezenet_shapes(classes: int = 10) -> tuple[Shape, ...]:
    """Parameters of torchvision's squeezenet1_1, in order: 52 tensors, 2.9 MB."""
    fires = (
        (64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128),
        (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256),
    )  # fmt: skip
    convolutions = [(64, 3, 3)]
    for channels, squeezed, expanded in fires:
        convolutions += [(squeezed, channels, 1), (expanded, squeezed, 1), (expanded, squeezed, 3)]
    convolutions.append((classes, 512, 1))
    return tuple(shape for out, into, kernel in convolutions for shape in ((out, into, kernel, kernel), (out,)))


def resnet18_shapes(classes: int = 10) -> tuple[Shape, ...]:
    """Parameters of torchvision's resnet18 without the buffers of its batch norms, in order: 62 tensors, 45 MB."""
    convolutions = [(64, 3, 7)]
    into = 64
    for out in (64, 128, 256, 512):
        convolutions += [(out, into, 3), (out, out, 3)]
        convolutions += [(out, into, 1)] if out != into else []
        convolutions += [(out, out, 3), (out, out, 3)]
        into = out
    normed = [shape for out, into, kernel in convolutions for shape in ((out, into, kernel, kernel), (out,), (out,))]
    return (*normed, (classes, 512), (classes,))


SIZES = {
    size.name: size
    for size in (
        Size("tiny", ((64, 64), (64,), (10, 64), (10,)), rounds=3),
        Size("small", squeezenet_shapes(), rounds=10),
        Size("large", resnet18_shapes(), rounds=3),
        Size("mini", ((125, 100),), rounds=10),
    )
}
"""By name: tiny (19 kB, to try the benchmark itself), small (2.9 MB in 52 tensors), large (45 MB), mini (50 kB in one)."""
