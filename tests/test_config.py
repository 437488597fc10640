"""An experiment is checked before anything starts, and every problem is said at once."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fltestbed.config import Experiment, load_experiment
from fltestbed.config_file import find_config, read_json, shipped_configs, validate
from fltestbed.errors import ConfigError
from fltestbed.flower.quantisation import Codec


def write(folder: Path, text: str) -> Path:
    file = folder / "x.toml"
    file.write_text(text)
    return file


def problems(folder: Path, text: str) -> list[str]:
    """Lines of the error, without the file's name that each begins with."""
    file = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_shipped_experiment_loads_by_name_and_by_path(name: str) -> None:
    """Both ways give the same experiment, and it bears the file's name."""
    by_name = load_experiment(Path(name))
    assert by_name == load_experiment(shipped_configs() / f"{name}.toml")
    assert by_name.name == name


def test_the_shipped_experiments_are_what_they_say() -> None:
    """The demo has four clients and eight rounds of digits; the paper's has CIFAR-10 and early stopping."""
    demo, paper = load_experiment(Path("demo")), load_experiment(Path("paper"))
    assert (demo.clients, demo.rounds, demo.data.name, demo.model.name) == (4, 8, "digits", "squeezenet")
    assert (paper.data.name, paper.strategy.name, paper.model.name) == ("cifar10", "FedAvg", "squeezenet")
    assert paper.early_stopping is not None
    assert paper.pacing is None


def test_a_name_is_enough(tmp_path: Path) -> None:
    """Everything else has a default, and what was resolved can be given again."""
    experiment = load_experiment(write(tmp_path, 'name = "x"'))
    assert (experiment.seed, experiment.transport, experiment.congestion_control) == (1, "bundle", "cubic")
    assert validate(Experiment, experiment.resolved, "again") == experiment
    assert experiment.resolved["training"]["local-epochs"] == 1


def test_an_experiment_does_not_change(tmp_path: Path) -> None:
    """It is frozen, its sections too."""
    experiment = load_experiment(write(tmp_path, 'name = "x"'))
    with pytest.raises(ValidationError):
        experiment.rounds = 5
    with pytest.raises(ValidationError):
        experiment.training.batch_size = 5


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    """None leaves the file's value; a flag is checked like a key."""
    file = write(tmp_path, 'name = "x"\nrounds = 7\nclients = 3')
    assert load_experiment(file, {"rounds": 2, "clients": None}).rounds == 2
    assert load_experiment(file, {"rounds": 2, "clients": None}).clients == 3
    with pytest.raises(ConfigError, match="rounds: "):
        load_experiment(file, {"rounds": 0})


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("round = 3", "round", 'did you mean "rounds"?'),
        ("[trainin]\nx = 1", "trainin", 'did you mean "training"?'),
        ("[training]\nlocal_epochs = 2", "training.local_epochs", 'did you mean "local-epochs"?'),
        ("[training]\nlearning-rat = 2", "training.learning-rat", 'did you mean "learning-rate"?'),
        ("[early-stopping]\npatince = 2", "early-stopping.patince", 'did you mean "patience"?'),
        ("[pacing]\nseconds_per_batch = [1]", "pacing.seconds_per_batch", 'did you mean "seconds-per-batch"?'),
        ("[server]\nports = 1", "server.ports", 'did you mean "port"?'),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path, text: str, key: str, hint: str) -> None:
    """At the top and in a section; underscores for dashes are the commonest slip."""
    (problem,) = problems(tmp_path, f'name = "x"\n{text}')
    assert problem.startswith(f"{key}: unknown key; {hint}; known here: ")


def test_an_unknown_key_unlike_any_other_lists_what_is_known(tmp_path: Path) -> None:
    """No guess, but the keys of that table and of no other."""
    (problem,) = problems(tmp_path, 'name = "x"\n[model]\nzzz = 1')
    assert problem == "model.zzz: unknown key; known here: name"


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ('rounds = "ten"', "rounds", "not 'ten'"),
        ("rounds = 0", "rounds", "greater than or equal to 1, not 0"),
        ("rounds = 1.5", "rounds", "not 1.5"),
        ("seed = -1", "seed", "greater than or equal to 0, not -1"),
        ("clients = 251", "clients", "less than or equal to 250, not 251"),
        ("model = 3", "model", "not 3"),
        ("[training]\nlearning-rate = -0.1", "training.learning-rate", "greater than 0, not -0.1"),
        ("[training]\nlearning-rate = nan", "training.learning-rate", "not nan"),
        ("[training]\nbatch-size = []", "training.batch-size", "not []"),
        ('[training]\noptimizer = "adamw"', "training.optimizer", "'adam' or 'sgd', not 'adamw'"),
        ("[data]\nvalidation-fraction = 1.0", "data.validation-fraction", "less than 1, not 1.0"),
        ("[server]\nport = 70000", "server.port", "less than or equal to 65535, not 70000"),
        ("[server]\nhold-s = 30", "server.hold-s", "less than or equal to 25, not 30"),
        ("[pacing]\nseconds-per-batch = [-1]", "pacing.seconds-per-batch.0", "greater than or equal to 0, not -1"),
        ("[pacing]\nseconds-per-batch = [inf]", "pacing.seconds-per-batch.0", "finite number, not inf"),
        ("[pacing]\nseconds-per-batch = []", "pacing", "the list is empty"),
        ("[pacing]\nseconds-per-batch = [1]\nseconds-per-epoch = [1]", "pacing", "not both"),
        ('[evaluation]\nclient = ["train"]', "evaluation.client.0", "'validation' or 'test', not 'train'"),
        ('link = ""', "link", "is empty"),
        ('transport = "grpc"', "transport", "'bundle' or 'objects', not 'grpc'"),
        ('congestion-control = "Cubic!"', "congestion-control", "not 'Cubic!'"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(tmp_path: Path, text: str, key: str, says: str) -> None:
    """The key as it is written in the file, the rule, the value."""
    (problem,) = problems(tmp_path, f'name = "x"\n{text}')
    assert problem.startswith(f"{key}: ")
    assert says in problem


@pytest.mark.parametrize(
    "text", ["rounds = true", 'rounds = "3"', 'clients = "2"', "seed = true", 'evaluation = {server = "no"}']
)
def test_a_wrong_type_is_wrong_even_if_it_could_be_read(tmp_path: Path, text: str) -> None:
    """`rounds = true` is a mistake, not one round."""
    problems(tmp_path, f'name = "x"\n{text}')


@pytest.mark.parametrize(
    "text",
    ["[training]\nlearning-rate = inf", "[server]\nround-deadline-s = inf", "[server]\njoin-timeout-s = inf",
     "[probes]\ninterval-s = inf", "[probes]\nmodem-interval-s = inf", "[data]\nalpha = inf"],
)  # fmt: skip
def test_infinity_is_no_value(tmp_path: Path, text: str) -> None:
    """It would reach the manifest, the app and the sockets."""
    problems(tmp_path, f'name = "x"\n{text}')


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "a,b", "=1", "x" * 65, "é", 'a"b', "a\\nb"])
def test_a_name_is_safe(tmp_path: Path, name: str) -> None:
    """It becomes a folder, a cell and a column."""
    quoted = name.replace('"', '\\"')
    (problem,) = problems(tmp_path, f'name = "{quoted}"')
    assert problem.startswith("name: ")


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    """One line each, every one with file and key."""
    found = problems(tmp_path, "rounds = 0\ncolour = 1\n[training]\nbatch-size = 0\nepochs = 1\n[server]\nport = 0")
    assert sorted(line.split(":")[0] for line in found) == [
        "colour", "name", "rounds", "server.port", "training.batch-size", "training.epochs",
    ]  # fmt: skip
    assert "name: missing; it is required" in found


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Also when it is a folder."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such file"):
        load_experiment(tmp_path / "nowhere.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml: there is no such file"):
        load_experiment(tmp_path / "folder.toml")


def test_a_shipped_name_that_is_not_there_lists_those_that_are() -> None:
    """With the nearest."""
    with pytest.raises(ConfigError, match=r'dmeo: neither a file nor a shipped name \(demo, paper\); did you mean "demo"\?'):
        load_experiment(Path("dmeo"))
    with pytest.raises(ConfigError, match=r"5G: neither .* \(5g, ethernet, .*wifi\)"):
        find_config("5G", "links")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"name = = 1", "line 1, column 8"), (b'name = "x"\nrounds = ?', "line 2"), (b"name = \xff", "utf-8")],
)
def test_broken_toml_is_said_with_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    """File, line and column; bytes that are not UTF-8 too."""
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"x\.toml: not valid TOML: .*{says}"):
        load_experiment(file)


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or not JSON."""
    broken = tmp_path / "x.json"
    broken.write_text("{")
    for file in (broken, tmp_path / "nowhere.json"):
        with pytest.raises(ConfigError, match=rf"{file}: cannot be read"):
            read_json(file)


def test_a_strategy_takes_any_arguments(tmp_path: Path) -> None:
    """They are the strategy's, which checks them itself."""
    experiment = load_experiment(
        write(tmp_path, 'name = "x"\n[strategy]\nname = "FedProx"\narguments = {proximal_mu = 0.1}')
    )
    expected: dict[str, Any] = {"proximal_mu": 0.1}
    assert experiment.strategy.arguments == expected


def test_compression_is_named_in_a_few_words() -> None:
    """Each direction with zstd's level where it has one: true is 3; without anything it is off."""
    named = {
        "none": {},
        "up int8, down none": {"uplink": "int8"},
        "up int8 + zstd 3, down fp16": {"uplink": "int8", "downlink": "fp16", "uplink-zstd": True},
        "up fp16 + zstd 1, down int8 + zstd 19": {
            "uplink": "fp16",
            "downlink": "int8",
            "uplink-zstd": 1,
            "downlink-zstd": 19,
        },
        "up none, down zstd 3": {"uplink-zstd": False, "downlink-zstd": True},
    }
    for summary, keys in named.items():
        compression = validate(Experiment, {"name": "x", "compression": keys}, "x.toml").compression
        assert compression.summary == summary
        assert compression.is_off is (summary == "none")


def test_each_direction_has_a_codec_of_its_own() -> None:
    """Name and level of the uplink alone, and of the downlink alone."""
    keys = {"uplink": "int8", "downlink": "none", "uplink-zstd": True, "downlink-zstd": 7}
    compression = validate(Experiment, {"name": "x", "compression": keys}, "x.toml").compression
    assert Codec(**compression.uplink_codec) == Codec("int8", 3)
    assert Codec(**compression.downlink_codec) == Codec("none", 7)


@pytest.mark.parametrize(
    "keys",
    [{"uplink": "int4"}, {"uplink-zstd": 20}, {"downlink-zstd": 0}, {"uplink-zstd": "yes"}, {"zstd": 3}, {"up": "int8"}],
)
def test_compression_that_does_not_exist_is_refused(keys: dict[str, object]) -> None:
    """With the key."""
    with pytest.raises(ConfigError, match=r"compression\."):
        validate(Experiment, {"name": "x", "compression": keys}, "x.toml")
