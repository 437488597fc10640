"""How long a run should take: from finished runs of the same condition, else from rates, bytes and paces.

The latter leaves out what no configuration knows (training that is not paced, retransmissions), so it says *at least*.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from fltestbed.campaign.schedule import PlannedRun
from fltestbed.config import Experiment
from fltestbed.links.profile import LinkProfile
from fltestbed.links.traffic import FRAME_BYTES

MODEL_BYTES = {"squeezenet": 2_910_504, "resnet18": 44_765_128, "mobilenet_v3_small": 6_161_144, "cnn": 135_336}
"""Parameters and buffers of the toolkit's models with 10 classes, in bytes."""
SAMPLES = {"digits": 1797, "cifar10": 50_000}
SEGMENT_BYTES = 1448
"""TCP payload of a full frame, with time stamps."""
START_S = 7.0
"""Measured on two cores: namespaces, server and trainers that import PyTorch, and the end of a run with one client."""
START_OF_A_CLIENT_S = 2.0
ROUND_OVERHEAD_S = 0.25
"""Measured with SqueezeNet: configure to collect without transfers and training, and the evaluation on the server."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run should take.

    Attributes
    ----------
    seconds : float or None
        None if nothing is known: an app of the user's, or a real link, that has not run yet.
    measured : int
        Number of finished runs that it is the mean of; 0 when it was computed, and then it is a lower bound.
    """

    seconds: float | None
    measured: int


def estimate(run: PlannedRun, elapsed_s: Mapping[str, Iterable[float]], *, app: bool) -> Estimate:
    """Estimate one run.

    Parameters
    ----------
    run : PlannedRun
    elapsed_s : mapping
        Seconds that finished runs took, by the label of their condition.
    app : bool
        Whether an app of the user's is run, which the experiment says nothing of.
    """
    if finished := list(elapsed_s.get(run.condition.label, ())):
        return Estimate(fmean(finished), len(finished))
    experiment = run.condition.experiment
    profile = run.condition.profile
    if app or profile is None or experiment.model.name not in MODEL_BYTES:
        return Estimate(None, 0)
    start_s = START_S + START_OF_A_CLIENT_S * experiment.clients
    return Estimate(start_s + experiment.rounds * round_seconds(experiment, profile), 0)


def round_seconds(experiment: Experiment, profile: LinkProfile) -> float:
    """A round at least: both transfers at the rate of the link, and the pace of the slowest client.

    A transfer is ``bits of the model * frame / payload / rate + delay``, with the model once for each client on a shared
    medium. A competing flow leaves half of the rate.
    """
    bits = MODEL_BYTES[experiment.model.name] * 8 * FRAME_BYTES / SEGMENT_BYTES
    if profile.medium != "dedicated":
        bits *= experiment.clients
    flow = experiment.competing_flow
    transfers_s = 0.0
    for name, way in (("uplink", profile.uplink), ("downlink", profile.downlink)):
        shared = flow is not None and (profile.medium == "half_duplex" or flow.direction in (name, "both"))
        transfers_s += bits / (way.rate_mbit * 1e6) * (2 if shared else 1) + way.delay_ms / 1e3
    return transfers_s + paced_seconds(experiment) + ROUND_OVERHEAD_S


def paced_seconds(experiment: Experiment) -> float:
    """Seconds for which the slowest client's pace keeps it training in a round; 0 without pacing."""
    pacing = experiment.pacing
    if pacing is None:
        return 0.0
    epochs = experiment.training.local_epochs
    if pacing.seconds_per_epoch is not None:
        return max(pacing.seconds_per_epoch[: experiment.clients]) * epochs
    data = experiment.data
    samples = data.samples or SAMPLES.get(data.name)
    if pacing.seconds_per_batch is None or samples is None:
        return 0.0
    kept = 1.0 if data.name == "cifar10" else 1 - data.server_fraction
    training = samples * kept / experiment.clients * (1 - data.validation_fraction - data.test_fraction)
    batches = -(-training // experiment.training.batch_size)
    return max(pacing.seconds_per_batch[: experiment.clients]) * batches * epochs
