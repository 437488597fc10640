"""What training costs without the toolkit and without Flower: a script that imports torch and trains SqueezeNet.

Run by its path with ``python -P``, so that of the package nothing is imported but the way around torchvision's operators.
Arguments: samples, batch size, epochs, threads.
"""

import sys

import torch
from torch import nn

from fltestbed.learning.vision import torchvision


def main(samples: int, batch_size: int, epochs: int, threads: int) -> None:
    """Train on random images of the shape that the toolkit's data have."""
    torch.set_num_threads(threads)
    model = torchvision.models.squeezenet1_1(num_classes=10)
    model.classifier[2] = nn.Identity()  # as the toolkit's own: torchvision's last ReLU dies on small images
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    images, labels = torch.rand(samples, 3, 32, 32), torch.randint(10, (samples,))
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(samples).split(batch_size):  # type: ignore[no-untyped-call]  # PyTorch
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()  # type: ignore[no-untyped-call]  # PyTorch
            optimizer.step()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
