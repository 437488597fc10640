"""The command line as a user meets it: one readable line, the right exit status, no traceback, nothing left behind."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fltestbed import __version__
from fltestbed.cli import Commands, app, describe
from fltestbed.cli.bench import Benchmarks
from fltestbed.cli.client import check_address
from fltestbed.errors import ConfigError
from fltestbed.security.files import write_new


def fltestbed(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fltestbed", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment, check=False)


def client(tmp_path: Path, **change: object) -> list[object]:
    options = {
        "server": "127.0.0.1:1", "interface": "lo", "link": "5g", "partition": 0, "name": "pi-1", "timeout": 0,
        "state": tmp_path / "state",
    }  # fmt: skip
    return ["client", *(part for key, value in (options | change).items() for part in (f"--{key}", value))]


def assert_one_line(done: subprocess.CompletedProcess[str], status: int, *says: str) -> None:
    """Everything that is said is one line that begins with the program's name."""
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("fltestbed: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for text in says:
        assert text in done.stderr


def test_help_lists_every_command() -> None:
    """With its line, and without importing any of them."""
    done = fltestbed("--help")
    assert done.returncode == 0
    for name, about in Commands.listed.items():
        assert name in done.stdout
        assert about in done.stdout


@pytest.mark.parametrize("command", [*Commands.listed, *(f"bench {name}" for name in Benchmarks.listed)])
def test_help_of_a_command_shows_an_example(command: str) -> None:
    """A line that can be copied."""
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert f"Example: fltestbed {command} " in " ".join(done.stdout.split())


def test_the_version_is_the_packages() -> None:
    """And nothing else is printed."""
    assert fltestbed("--version").stdout == f"{__version__}\n"


def test_a_server_resumes_one_run(tmp_path: Path) -> None:
    """The run that is named, or the newest that has failed: both at once are refused."""
    done = fltestbed("server", "demo", "--runs", tmp_path, "--resume", "a", "--resume-failed")
    assert_one_line(done, 2, "--resume a: names the run to go on with; leave --resume-failed out")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sever"], "No such command 'sever'"),
        (["server"], "Missing argument 'CONFIG'"),
        (["server", "demo", "--colour", "red"], "No such option"),
        (["client", "--server", "x:1"], "Missing option"),
        (["client", "--server", "x:1", "--interface", "lo", "--link", "5g", "--partition", "-1"], "-1 is not in the range"),
        (["client", "--server", "x:1", "--interface", "lo", "--link", "5g", "--partition", "one"], "not a valid integer"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], says: str) -> None:
    """The usage and what was wrong with it."""
    done = fltestbed(*arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    """Status 2, with its name and those that are shipped."""
    assert_one_line(fltestbed("server", "dmeo"), 2, "dmeo: neither a file nor a shipped name (demo, paper)")
    assert_one_line(fltestbed("server", tmp_path / "x.toml"), 2, f"{tmp_path}/x.toml: there is no such file")


def test_an_unknown_key(tmp_path: Path) -> None:
    """Status 2, and the nearest that is known."""
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\nround = 3')
    assert_one_line(fltestbed("server", file), 2, f'{file}: round: unknown key; did you mean "rounds"?')


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """Status 2, with an example of one."""
    done = fltestbed(*client(tmp_path, server="host:port"))
    assert_one_line(done, 2, "--server host:port: not an address; give HOST:PORT")


@pytest.mark.parametrize("address", ["nonsense", "localhost", "http://x:1", ":1", "host:", ""])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    """Nothing else will do, nor half of it."""
    with pytest.raises(ConfigError, match=f"--server {address}: not an address; give HOST:PORT"):
        check_address("--server", address)


def test_a_name_that_is_not_safe(tmp_path: Path) -> None:
    """Status 2, for the client's and the link's."""
    assert_one_line(fltestbed(*client(tmp_path, name="../pi")), 2, "--name ../pi: letters, digits")
    assert_one_line(fltestbed(*client(tmp_path, link="=5g")), 2, "--link =5g: letters, digits")


def test_an_interface_that_does_not_exist(tmp_path: Path) -> None:
    """Status 1, with those that do; no key has been made yet."""
    done = fltestbed(*client(tmp_path, interface="wwan9"))
    assert_one_line(done, 1, "--interface wwan9: this host has no such interface; it has ", "lo")
    assert not (tmp_path / "state").exists()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """Status 1, with the address, the interface, the time and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    done = fltestbed(*client(tmp_path, server=address, timeout=0.1))
    assert_one_line(done, 1, f"{address}: no server answers there within 0.1 s over lo", "Connection refused")


def test_no_patience_still_makes_one_honest_try(tmp_path: Path) -> None:
    """`--timeout 0` asks once, and says why there was no answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    assert_one_line(fltestbed(*client(tmp_path, server=address, timeout=0)), 1, "Connection refused")


def test_a_key_that_is_broken(tmp_path: Path) -> None:
    """Status 1, with the file."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "node.key").write_bytes(b"garbage")
    assert_one_line(fltestbed(*client(tmp_path)), 1, f"{state}/node.key: the node's key cannot be read or made")


def test_a_server_for_the_network_wants_a_certificate(tmp_path: Path) -> None:
    """Status 2, with how to make one and how to go without; no run folder is left."""
    file = tmp_path / "x.toml"
    file.write_text('name = "x"')
    done = fltestbed("server", file, "--runs", tmp_path / "runs", "--certificates", tmp_path / "certs")
    assert_one_line(
        done, 2, f"{tmp_path}/certs/server.crt: a certificate cannot be read",
        f"make it with: fltestbed certs {tmp_path}/certs", "or say tls = false under [server]",
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()


def test_certificates_are_made_and_kept(tmp_path: Path) -> None:
    """One line a file; the second time all are kept; an address that is missing is an error until --renew."""
    made = fltestbed("certs", tmp_path, "--address", "radio-host", "--node", "pi-0")
    assert made.returncode == 0, made.stderr
    assert [line.split()[:2] for line in made.stdout.splitlines()] == [
        ["made", f"{tmp_path}/{name}"]
        for name in ("ca.key", "ca.crt", "server.key", "server.crt", "nodes/pi-0.key", "nodes/pi-0.pub")
    ]
    kept = fltestbed("certs", tmp_path, "--node", "pi-0")
    assert {line.split()[0] for line in kept.stdout.splitlines()} == {"kept"}
    assert_one_line(fltestbed("certs", tmp_path, "--address", "10.9.9.9"), 2, "is not for 10.9.9.9; add --renew")
    renewed = fltestbed("certs", tmp_path, "--address", "10.9.9.9", "--renew")
    assert [line.split()[0] for line in renewed.stdout.splitlines()] == ["kept", "kept", "replaced", "replaced"]
    assert_one_line(fltestbed("certs", tmp_path, "--node", "../x"), 2, "--node ../x: letters, digits")


def test_a_port_in_use(tmp_path: Path) -> None:
    """Status 1, with address and port; no run folder is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        file = tmp_path / "x.toml"
        file.write_text(f'name = "x"\n[server]\nhost = "127.0.0.1"\nport = {port}')
        done = fltestbed("server", file, "--runs", tmp_path / "runs")
    assert_one_line(done, 1, f"127.0.0.1:{port}: cannot listen there: Address already in use; choose another server.port")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_exists(tmp_path: Path) -> None:
    """Status 2, with what to do; what is in it stays."""
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "manifest.json").write_text("mine")
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\n[server]\nhost = "127.0.0.1"\nport = 39217')
    done = fltestbed("server", file, "--runs", tmp_path / "runs")
    assert_one_line(done, 2, f"{tmp_path}/runs/x: exists already; choose another name with --name")
    assert (tmp_path / "runs" / "x" / "manifest.json").read_text() == "mine"


def test_a_runs_name_that_is_not_safe(tmp_path: Path) -> None:
    """Status 2: the name is a folder below --runs, and a cell of every table."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the port is in use: without the check, that is the error
        file = tmp_path / "x.toml"
        file.write_text(f'name = "x"\n[server]\nhost = "127.0.0.1"\nport = {listener.getsockname()[1]}')
        done = fltestbed("server", file, "--runs", tmp_path / "runs", "--name", "../=x,y")
    assert_one_line(done, 2, "--name")


def test_an_app_that_is_none(tmp_path: Path) -> None:
    """Status 2, with the folder."""
    done = fltestbed("server", "demo", "--app", tmp_path, "--runs", tmp_path / "runs")
    assert_one_line(done, 2, f"{tmp_path}: no pyproject.toml there; --app wants the folder of a Flower app")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["summary", "plot"])
def test_a_run_that_is_not_there(tmp_path: Path, command: str) -> None:
    """Status 2, with the folder."""
    assert_one_line(fltestbed(command, tmp_path / "nowhere", cwd=tmp_path), 2, f"{tmp_path}/nowhere")


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    """The traceback that is kept from users otherwise."""
    done = fltestbed("--debug", "server", tmp_path / "x.toml")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "there is no such file" in done.stderr


def interrupted(tmp_path: Path, number: signal.Signals) -> tuple[int, str]:
    """Stop a client that waits for its server; its exit status and what it said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = client(tmp_path, server=f"127.0.0.1:{listener.getsockname()[1]}", timeout=60)
        command = [sys.executable, "-m", "fltestbed", *map(str, arguments)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            listener.settimeout(30)
            connection, _ = listener.accept()  # it has come as far as asking
            with connection:
                process.send_signal(number)
                _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_status_130(tmp_path: Path, number: signal.Signals) -> None:
    """The client waits for its server; asked to stop it is gone, and says so in one line."""
    assert interrupted(tmp_path, number) == (130, "fltestbed: interrupted\n")


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "make room, or write to another place"),
        (errno.EROFS, "write to another place"),
        (errno.EACCES, "run as who may do that, or use another place"),
        (errno.ENOENT, "install it, or mend the path"),
        (errno.EIO, "--debug shows where"),
    ],
)
def test_what_the_kernel_refuses_comes_with_what_to_do(number: int, cure: str) -> None:
    """Where nobody has met it with words of his own: the file, the reason and a cure."""
    assert describe(OSError(number, os.strerror(number), "/x/y")) == f"/x/y: {os.strerror(number)}; {cure}"


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that found no room: its name and what to do, and no half of it is left."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the kernel says it: without a name

    monkeypatch.setattr("fltestbed.security.files.os.fchmod", full)
    path = tmp_path / "ca.key"
    with pytest.raises(OSError, match="No space left") as refused:
        write_new(path, b"secret")
    assert describe(refused.value) == f"{path}: No space left on device; make room, or write to another place"
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """Status 1, with the program and what to do, however deep it was wanted."""
    command = [sys.executable, "-m", "fltestbed", "campaign", "paper", "--runs", str(tmp_path)]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert_one_line(done, 1, "setpriv: No such file or directory; install it, or mend the path")


def test_a_model_whose_module_is_not_here_is_told_before_anything_is_made(tmp_path: Path) -> None:
    """Status 2, with the name as it was given; clients would find out after they have joined."""
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\n[model]\nname = "no_such_package.nets:net"\n[server]\nhost = "127.0.0.1"\nport = 39218')
    done = fltestbed("server", file, "--runs", tmp_path / "runs")
    assert_one_line(
        done, 2, "model.name: 'no_such_package.nets:net': no module no_such_package on this host; install it here"
    )
    assert not (tmp_path / "runs").exists()
