"""An experiment, described by one TOML file and checked before anything starts.

`Experiment.resolved` is what was used in the end and is saved with the run. How a file is found, read and checked stands in
`fltestbed.config_file`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, field_validator, model_validator

from fltestbed.config_file import NAME_PATTERN, Section, find_config, read_toml, validate

DEFAULT_ZSTD_LEVEL = 3
"""zstd's own."""

MODULE_OBJECT_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

Seconds = Annotated[float, Field(ge=0)]
Limit = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Zstd = StrictBool | Annotated[int, Field(strict=True, ge=1, le=19)]


class Model(Section):
    """What is trained. `name` is squeezenet, resnet18, mobilenet_v3_small, cnn or an installed `module:function`."""

    name: str = "squeezenet"


class Data(Section):
    """What it is trained on, and how the samples are spread over the clients."""

    name: Literal["digits", "cifar10", "synthetic"] = "digits"
    path: Path | None = None
    """Folder that holds the data set; None downloads it to the user's cache where that is possible."""
    samples: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Use this many samples of the data set (drawn with the seed); None for all."""
    partition: Literal["iid", "dirichlet", "shards"] = "iid"
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """Concentration of the Dirichlet partition: small is uneven."""
    shards_per_client: Annotated[int, Field(strict=True, ge=1)] = 2
    validation_fraction: Fraction = 0.1
    """Part of each client's samples that is kept for validation on the client."""
    test_fraction: Fraction = 0.1
    """Part of each client's samples that is kept for testing on the client."""
    server_fraction: Fraction = 0.2
    """Part of all samples that no client sees: the server tests the global model on it (CIFAR-10 brings its own)."""


class Training(Section):
    """What one client does in one round."""

    local_epochs: Annotated[int, Field(strict=True, ge=1)] = 1
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 32
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    threads: Annotated[int, Field(strict=True, ge=0)] = 0
    """Threads of PyTorch in one trainer; 0 leaves PyTorch's own choice, 1 is right for several clients on one machine."""


class Strategy(Section):
    """How the server combines what it gets: a Flower strategy by name, or an installed `module:object`."""

    name: str = "FedAvg"
    arguments: dict[str, Any] = Field(default_factory=dict)
    streaming: StrictBool = True
    """Add each reply to the average when it arrives and free it, with strategies of which it is certain that the result is
    the same; False keeps all replies until the last has come, as Flower does."""


class Evaluation(Section):
    """Where the model is evaluated. Clients evaluate before the upload, as in the paper (t_v and t_ts)."""

    client: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    server: StrictBool = True


class EarlyStopping(Section):
    """End the run when `metric` has not improved by `min_delta` for `patience` rounds."""

    metric: Literal["accuracy", "loss", "validation-loss", "validation-accuracy"] = "validation-loss"
    patience: Annotated[int, Field(strict=True, ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Pacing(Section):
    """Emulated compute: a batch or a local epoch takes at least so long, so that few cores can play many Pis.

    The lists give one value a client and repeat when there are more clients than values. None leaves compute as it is.
    """

    seconds_per_batch: tuple[Seconds, ...] | None = None
    seconds_per_epoch: tuple[Seconds, ...] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.seconds_per_batch is not None and self.seconds_per_epoch is not None:
            raise ValueError("give seconds-per-batch or seconds-per-epoch, not both")
        if self.seconds_per_batch == () or self.seconds_per_epoch == ():
            raise ValueError("the list is empty: give at least one value in seconds, or leave the key out")
        return self


class Probes(Section):
    """What is read from the hosts while a run goes on. Where a host has nothing to read, the manifest says why."""

    system: StrictBool = True
    """CPU, memory, temperature, bytes of the interface."""
    throttling: StrictBool = True
    """Throttling and undervoltage flags of a Raspberry Pi, in the rows of `system`."""
    time_sync: StrictBool = True
    """What chrony, systemd-timesyncd or ptp4l say, in the manifest at start and end, and in the rows of `system`."""
    wifi: StrictBool = True
    """Signal, bit rates, channel and power save of a client's WiFi interface."""
    modem: StrictBool = True
    """Signal, channel and cell of a client's modem, through ModemManager or, without it, qmicli."""
    gnb_log: Path | None = None
    """The file to which a gNB on the server's host writes its log (OpenAirInterface, srsRAN): MCS, BLER, HARQ, resource
    blocks of each modem."""
    interval_s: Annotated[float, Field(ge=0.1)] = 1.0
    """Between two readings of `system`, `throttling`, `wifi` and `gnb-log`."""
    modem_interval_s: Annotated[float, Field(ge=1)] = 5.0
    """Each reading starts two programs; the modem itself is asked in whole seconds."""
    time_sync_interval_s: Annotated[float, Field(ge=1)] = 30.0


class CompetingFlow(Section):
    """A stranger's iperf3 traffic with the server's host, through the medium of an emulated link, as long as a run takes.

    On real links the flow is yours to start; this section is for `fltestbed run` and `fltestbed campaign`.
    """

    direction: Literal["uplink", "downlink", "both"] = "uplink"
    protocol: Literal["tcp", "udp"] = "tcp"
    rate_mbit: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """What it sends in each of its directions; None lets TCP take what its congestion control gets."""

    @model_validator(mode="after")
    def _udp_has_a_rate(self) -> Self:
        if self.protocol == "udp" and self.rate_mbit is None:
            raise ValueError("udp has no congestion control: give rate-mbit")
        return self


class ClockMapping(Section):
    """How the clients' clocks are mapped to the server's beside what the measured link itself says."""

    second_network: StrictBool = False
    """In emulated runs: give each client a second, quiet network, and take clock exchanges there as well. On real hosts,
    `fltestbed client --clock-interface` names it."""
    interval_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """Between two exchanges over the second network."""


class Connection(Section):
    """What TCP and a radio remember of an idle connection: held still, so that compared runs start from the same."""

    idle_restart: StrictBool | None = None
    """Whether TCP starts slowly again after a pause longer than its retransmission timeout (Linux:
    net.ipv4.tcp_slow_start_after_idle). Set in emulated runs; on real hosts read, recorded and told where it differs. None
    leaves it as it is (Linux: it does)."""
    metrics_cache: StrictBool | None = None
    """Whether a new connection starts with what the kernel remembers of the last one to the same host: round trip and
    slow-start threshold (Linux: not net.ipv4.tcp_no_metrics_save). As for `idle-restart`."""
    keep_warm_s: Annotated[float, Field(ge=0, le=25)] = 0.0
    """While a client trains or waits, it exchanges a few bytes with the server this often, so that a radio or a NAT does not
    go to sleep; 0 lets it. TCP restarts all the same: what keeps it from that is `idle-restart = false`."""

    @property
    def sysctls(self) -> dict[str, str]:
        """Settings below /proc/sys that were asked for, and their values."""
        asked = {
            "net/ipv4/tcp_slow_start_after_idle": self.idle_restart,
            "net/ipv4/tcp_no_metrics_save": None if self.metrics_cache is None else not self.metrics_cache,
        }
        return {key: str(int(value)) for key, value in asked.items() if value is not None}


class Instrumentation(Section):
    """Whether rounds are measured. Off serves to find out what measuring costs: `fltestbed bench instrumentation`.

    Of a round that is not measured, start and end alone are taken (metrics.csv, `round-s`): no stamps of transfers, no
    TCP_INFO, no clock exchanges, no rows, no probes. Messages go the same way.
    """

    off: StrictBool = False
    alternate_rounds: Annotated[int, Field(strict=True, ge=1)] | None = None
    """So many rounds are measured, then twice as many are not, then so many are, and so on: on, off, off, on."""

    def is_measured(self, round_: int) -> bool:
        """Whether the round of this number, from 1, is measured."""
        if self.alternate_rounds is not None and not self.off:
            return ((max(round_, 1) - 1) // self.alternate_rounds) % 4 in (0, 3)
        return not self.off


class Server(Section):
    """The SuperLink: where it listens and how long it waits."""

    host: str = "0.0.0.0"
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = 9092
    hold_s: Annotated[float, Field(gt=0, le=25)] = 20.0
    """Longest time that a request for work is held. Under Flower's client timeout of 30 s and under the idle time after
    which NATs and 5G user planes forget a flow."""
    join_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """How long the server waits for its clients to join."""
    round_deadline_s: Annotated[float, Field(gt=0)] = 600.0
    """A round goes on without the replies that are still missing after this time."""
    tls: StrictBool | None = None
    """TLS between clients and server. None: on for `fltestbed server` on an address that is not loopback, off for
    `fltestbed run`, which makes its own certificates when this is true."""
    certificates: Path = Path("certs")
    """Folder of the server's certificate and key, as `fltestbed certs` makes it."""
    node_keys: Path | None = None
    """The public keys of the clients that may join: a folder of NAME.pub, or a file with one a line. None lets any key join.
    With `fltestbed run`, which makes keys for its own clients, the value does not matter, only that there is one."""
    mixed_versions: StrictBool = False
    """Let clients join that run another version of fltestbed or flwr; the manifest says so. What they then do to each other
    is untested."""
    checkpoints: StrictBool = True
    """Keep the model and the strategy's state of each round in the run folder (of the last two), so that a run whose server
    failed can go on (`fltestbed server CONFIG --resume RUN`). Written beside the run, by a thread of its own."""
    largest_message_mb: Annotated[float, Field(gt=0, le=4096)] = 1024.0
    """A reply that announces more, or whose tensors would take more when they are whole again, is refused."""

    @property
    def largest_message_bytes(self) -> int:
        """The same in bytes."""
        return int(self.largest_message_mb * 1e6)


class Compression(Section):
    """Fewer bytes for a model's tensors on the way, each direction for itself; strategy and app see whole ones again.

    `fltestbed.flower.quantisation` says what each does to the numbers. Clients of the toolkit alone understand it.
    """

    uplink: Literal["none", "fp16", "int8"] = "none"
    downlink: Literal["none", "fp16", "int8"] = "none"
    uplink_zstd: Zstd = False
    """Over what is left, where it saves anything: true for zstd's level 3, or a level, 1 (fast) to 19 (small)."""
    downlink_zstd: Zstd = False
    """The same the other way."""

    @property
    def uplink_codec(self) -> dict[str, Any]:
        """What `fltestbed.flower.quantisation.Codec` takes, for replies."""
        return {"name": self.uplink, "zstd_level": _zstd_level(self.uplink_zstd)}

    @property
    def downlink_codec(self) -> dict[str, Any]:
        """The same for messages to clients."""
        return {"name": self.downlink, "zstd_level": _zstd_level(self.downlink_zstd)}

    @property
    def is_off(self) -> bool:
        """Whether tensors cross as they are."""
        return self.summary == "none"

    @property
    def summary(self) -> str:
        """In a few words, for the manifest and the tables: "none", or for example "up int8 + zstd 3, down fp16"."""
        up, down = _codec_summary(**self.uplink_codec), _codec_summary(**self.downlink_codec)
        return "none" if up == down == "none" else f"up {up}, down {down}"


def _zstd_level(zstd: Zstd) -> int | None:
    """The level; None without zstd."""
    if isinstance(zstd, bool):
        return DEFAULT_ZSTD_LEVEL if zstd else None
    return zstd


def _codec_summary(name: str, zstd_level: int | None) -> str:
    if zstd_level is None:
        return name
    return f"zstd {zstd_level}" if name == "none" else f"{name} + zstd {zstd_level}"


class Deadlines(Section):
    """When a round goes on without a client, beside `server.round-deadline-s`, which bounds the whole answer to a message.

    A limit of a phase runs from the moment at which the server saw the phase begin; None leaves it to the round's. A client
    stops a trainer that takes nine tenths of `train-s` or `evaluate-s`, so that the error reply that says why is in time.
    """

    queue_s: Limit | None = None
    """Until the client asks for the message."""
    downlink_s: Limit | None = None
    train_s: Limit | None = None
    """From the end of the downlink to the first byte of the uplink."""
    evaluate_s: Limit | None = None
    """The same of a message that asks for an evaluation."""
    uplink_s: Limit | None = None
    learned: StrictBool = False
    """Bound a round by how long the last ones took as well: `factor` times the `quantile` of the times in which clients
    answered in the last `rounds` rounds. See `fltestbed.server.deadline.LearnedDeadline` for the formula."""
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.95
    factor: Annotated[float, Field(ge=1)] = 3.0
    rounds: Annotated[int, Field(strict=True, ge=1)] = 5
    least_s: Limit = 10.0
    """A learned deadline is never shorter."""
    minimum_replies: Annotated[int, Field(strict=True, ge=1)] = 1
    """A round with fewer replies (or than it sent messages, if those are fewer) is abandoned: the strategy gets none of
    them, and the next round starts from the same model. The strategy's own min-* arguments hold beside it."""
    return_s: Limit = 900.0
    """How long an app may wait for more clients than are there before the run fails."""


class Experiment(Section):
    """One experiment: everything that two runs must share to be comparable, but the link."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 1
    rounds: Annotated[int, Field(strict=True, ge=1)] = 3
    clients: Annotated[int, Field(strict=True, ge=1, le=250)] = 2
    link: str = "ethernet"
    """Link profile of emulated runs: a shipped name (5g, wifi, ethernet) or the path of a TOML file."""
    transport: Literal["bundle", "objects"] = "bundle"
    """How a model moves: `bundle`, one streamed request a message; `objects`, Flower's own, one request an object."""
    congestion_control: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,15}$")] = "cubic"
    """Of the server's and the clients' sockets; recorded with the run."""
    model: Model = Model()
    data: Data = Data()
    training: Training = Training()
    strategy: Strategy = Strategy()
    evaluation: Evaluation = Evaluation()
    early_stopping: EarlyStopping | None = None
    pacing: Pacing | None = None
    competing_flow: CompetingFlow | None = None
    probes: Probes = Probes()
    compression: Compression = Compression()
    clock: ClockMapping = ClockMapping()
    connection: Connection = Connection()
    instrumentation: Instrumentation = Instrumentation()
    server: Server = Server()
    deadlines: Deadlines = Deadlines()

    @field_validator("link", mode="after")
    @classmethod
    def _link_is_named(cls, value: str) -> str:
        if not value:
            raise ValueError("is empty: give a shipped profile or the path of a TOML file")
        return value

    def with_server(self, **changes: Any) -> Self:
        """The same with other values in its section [server]; a None leaves the file's."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.model_copy(update={"server": self.server.model_copy(update=given)})

    @property
    def resolved(self) -> dict[str, Any]:
        """The whole experiment as plain data, defaults filled in, keys as in the file."""
        return self.model_dump(mode="json", by_alias=True)


def load_experiment(path: Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """Read and check an experiment.

    Parameters
    ----------
    path : Path
        A TOML file, or the name of a shipped one ("demo", "paper").
    overrides : dict, optional
        Top-level keys that were given on the command line; a None value leaves the file's.

    Raises
    ------
    ConfigError
        The file is missing or is not TOML, or any key of it is unusable. All problems are in the message.
    """
    data = read_toml(find_config(path, "."))
    data.update({key: value for key, value in (overrides or {}).items() if value is not None})
    return validate(Experiment, data, str(path))
