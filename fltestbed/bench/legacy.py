"""The path that older testbeds used: Flower's deprecated start_server and start_client over gRPC, as a program.

Reads its order from the only argument, JSON: ``role`` (server or client), ``address`` (host:port), and for the server
``size``, ``rounds`` and ``stamps``, the file for the start of each round in raw ns.
"""

import json
import sys
from pathlib import Path
from typing import Any

from flwr.client import NumPyClient, start_client
from flwr.common import NDArrays, Scalar, ndarrays_to_parameters
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg

from fltestbed.bench.models import SIZES, fresh_weights
from fltestbed.bench.noise import CLIENTS
from fltestbed.clock import SYSTEM_CLOCK


class _StampedFedAvg(FedAvg):
    """Flower's older FedAvg, which remembers when each round started."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.starts_ns: list[int] = []

    def configure_fit(self, *arguments: Any, **named: Any) -> Any:
        """See Flower."""
        self.starts_ns.append(SYSTEM_CLOCK.raw_ns())
        return super().configure_fit(*arguments, **named)


class _Noise(NumPyClient):
    """Answers with fresh random weights."""

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:  # noqa: ARG002  # Flower's
        """See Flower."""
        weights: NDArrays = list(fresh_weights(tuple(array.shape for array in parameters)))
        return weights, 1, {}


def serve(address: str, size: str, rounds: int, stamps: str) -> None:
    """Run the rounds and write their starts."""
    weights: NDArrays = list(fresh_weights(SIZES[size].shapes))
    strategy = _StampedFedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=CLIENTS,
        min_available_clients=CLIENTS,
        initial_parameters=ndarrays_to_parameters(weights),
    )
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    Path(stamps).write_text(json.dumps(strategy.starts_ns))


def main(order: dict[str, Any]) -> None:
    """Play the role that the order names."""
    if order.pop("role") == "server":
        serve(**order)
    else:
        start_client(server_address=order["address"], client=_Noise().to_client(), insecure=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
