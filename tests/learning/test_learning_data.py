"""Data sets: digits, CIFAR-10 in the real format, noise."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fltestbed.config import Data
from fltestbed.errors import ConfigError, HostError
from fltestbed.learning import data as data_module
from fltestbed.learning.data import Samples, cache_folder, load_client_data, load_server_data
from fltestbed.learning.partition import hold_out
from fltestbed.learning.vision import torchvision


def data_of(**keys: object) -> Data:
    return Data.model_validate({key.replace("_", "-"): value for key, value in keys.items()})


def rows(samples: Samples) -> set[bytes]:
    return {image.numpy().tobytes() for image in samples.images}


def test_digits_are_enlarged_and_spread_without_loss() -> None:
    """1,797 images: 359 for the server, the rest for the clients; pixels 4 x 4, three equal channels, 0 to 255."""
    data = data_of(name="digits")
    clients = [load_client_data(data, 1, client, 4) for client in range(4)]
    server = load_server_data(data, 1)
    assert len(server) == 359
    assert sum(len(part) for client in clients for part in (client.train, client.validation, client.test)) == 1797 - 359
    image = server.images[0]
    assert image.shape == (3, 32, 32)
    assert torch.equal(image[0], image[2])
    assert torch.equal(image[0, :4, :4], image[0, 0, 0].expand(4, 4))
    assert (int(server.images.min()), int(server.images.max())) == (0, 255)


def test_digits_are_those_of_scikit_learn() -> None:
    """The file read without scikit-learn holds what its own loader returns, in the same order."""
    reference = load_digits()
    data = data_of(name="digits", server_fraction=0.999)
    held = hold_out(1797, data, 1, fraction=0.999)[1]
    server = load_server_data(data, 1)
    assert np.array_equal(server.labels.numpy(), reference.target[held])
    assert np.array_equal(server.images[:, 0, ::4, ::4].numpy(), np.rint(reference.images[held] * 255 / 16))


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setattr(data_module, "distribution", distribution_of_nothing)
    with pytest.raises(HostError, match=r"digits comes with scikit-learn.*install fltestbed\[digits\]"):
        load_server_data(data_of(name="digits"), 1)


def distribution_of_nothing(name: str) -> None:
    raise PackageNotFoundError(name)


def test_no_client_sees_what_the_server_tests_on() -> None:
    """Noise images are all different, so a shared one would be found."""
    data = data_of(name="synthetic", samples=100)
    server = rows(load_server_data(data, 1))
    assert len(server) == 20
    for client in range(2):
        own = load_client_data(data, 1, client, 2)
        assert not server & (rows(own.train) | rows(own.validation) | rows(own.test))


def test_a_batch_is_numbers_from_minus_one_to_one() -> None:
    """0 becomes -1 and 255 becomes 1; the stored bytes stay as they are."""
    samples = Samples(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), torch.tensor([3]))
    images, labels = samples.batch(slice(0, 1))
    assert images.flatten().tolist() == [-1.0, 1.0]
    assert labels.tolist() == [3]
    assert samples.images.flatten().tolist() == [0, 255]


def test_cifar10_is_read_from_a_folder(small_cifar10: Path) -> None:
    """40 training images are spread over the clients, the 6 of the test set are the server's, in the file's order."""
    assert b"K\x00K\x01\x87q" in (small_cifar10 / "cifar-10-batches-py" / "test_batch").read_bytes()
    data = data_of(name="cifar10", path=str(small_cifar10), server_fraction=0.5)
    clients = [load_client_data(data, 1, client, 2) for client in range(2)]
    assert [len(client.train) + len(client.validation) + len(client.test) for client in clients] == [20, 20]
    server = load_server_data(data, 1)
    assert server.labels.tolist() == [0, 1, 2, 3, 4, 5]
    reference = torchvision.datasets.CIFAR10(small_cifar10, train=False, transform=torchvision.transforms.ToTensor())
    assert torch.equal(server.images[2], (reference[2][0] * 255).round().to(torch.uint8))


def test_the_unpacked_folder_itself_will_do(small_cifar10: Path) -> None:
    """A path that ends with cifar-10-batches-py means the same as the folder around it."""
    assert len(load_server_data(data_of(name="cifar10", path=str(small_cifar10 / "cifar-10-batches-py")), 1)) == 6


def test_a_given_folder_without_the_data_says_what_to_put_there(tmp_path: Path) -> None:
    """Nothing is downloaded to a folder that was given; the message names folder, files and source."""
    with pytest.raises(
        ConfigError, match=r"data.path: .* holds no whole CIFAR-10; put cifar-10-python.tar.gz or .*https://"
    ) as caught:
        load_server_data(data_of(name="cifar10", path=str(tmp_path)), 1)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_not_read(small_cifar10: Path) -> None:
    """One wrong byte fails the checksum."""
    batch = small_cifar10 / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="holds no whole CIFAR-10"):
        load_client_data(data_of(name="cifar10", path=str(small_cifar10)), 1, 0, 2)


def test_a_failed_download_names_folder_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path the user's cache is tried; without a network the message says where to put the files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", no_network)
    with pytest.raises(HostError, match=r"could not be downloaded to .*no route to host.*set data.path") as caught:
        load_server_data(data_of(name="cifar10"), 1)
    assert str(cache_folder()) in str(caught.value)
    assert cache_folder() == tmp_path / "fltestbed"


def test_synthetic_noise_depends_on_the_seed() -> None:
    """Same seed, same noise; its size has to be given."""
    data = data_of(name="synthetic", samples=50)
    first, again, other = (load_server_data(data, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.images.numpy(), again.images.numpy())
    assert not np.array_equal(first.images.numpy(), other.images.numpy())
    with pytest.raises(ConfigError, match=r"data.samples: missing; the data set synthetic needs it"):
        load_server_data(data_of(name="synthetic"), 1)


def test_a_server_without_samples_says_so() -> None:
    """server-fraction 0 cannot go with evaluation on the server."""
    with pytest.raises(
        ConfigError, match=r"data.server-fraction: 0.0 leaves the server nothing .* evaluation.server = false"
    ):
        load_server_data(data_of(name="digits", server_fraction=0), 1)
