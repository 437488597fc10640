"""A host is described by what tells two runs apart, and by the reasons for what is missing."""

from pathlib import Path

import pytest

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.measure.host import describe_host

CPU = "sys/devices/system/cpu"
PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd0b\n\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5\n",
    "proc/device-tree/cpus/cpu@0/compatible": "arm,cortex-a76\0",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "ondemand\n",
    f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
    "proc/sys/net/ipv4/tcp_congestion_control": "cubic\n",
    "proc/sys/net/ipv4/tcp_available_congestion_control": "reno cubic\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def of_interfaces(key: str) -> bool:
    return key.startswith("interfaces.")


def test_a_pi_is_described_by_its_board_and_its_core(tmp_path: Path) -> None:
    """The processor's name comes from the device tree, for /proc/cpuinfo has the board's alone; nothing is unknown."""
    described = describe_host(SYSTEM_CLOCK, write(tmp_path, PI))
    assert described["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert (described["cpu"], described["cpu_max_khz"], described["governor"]) == ("arm,cortex-a76", 2_400_000, "ondemand")
    assert described["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert (described["clock_source"], described["congestion_control"]) == ("arch_sys_counter", "cubic")
    assert described["congestion_controls"] == "reno cubic"
    assert {key for key in described["unknown"] if not of_interfaces(key)} == set()


def test_a_pc_is_described_by_its_product_and_processor(tmp_path: Path) -> None:
    """Without a device tree the firmware's name of the product is taken, and the first source leaves no reason behind."""
    files = {
        "sys/class/dmi/id/product_name": "NUC12WSHi7\n",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel i7-1260P\n",
    }
    described = describe_host(SYSTEM_CLOCK, write(tmp_path, files))
    assert (described["model"], described["cpu"]) == ("NUC12WSHi7", "Intel i7-1260P")
    assert not {"model", "cpu"} & described["unknown"].keys()


def test_governors_that_differ_are_all_named(tmp_path: Path) -> None:
    """One core that was set by hand is what a reader has to know."""
    files = PI | {
        f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
        f"{CPU}/cpu1/cpufreq/cpuinfo_max_freq": "1500000\n",
    }
    described = describe_host(SYSTEM_CLOCK, write(tmp_path, files))
    assert (described["governor"], described["cpu_max_khz"]) == ("ondemand, performance", 2_400_000)


def test_what_is_missing_has_a_reason(tmp_path: Path) -> None:
    """An empty root: each key that is None names the files that were looked for; an empty file is said to be empty."""
    described = describe_host(SYSTEM_CLOCK, write(tmp_path, {"proc/device-tree/model": "\0"}))
    missing = {"model", "os", "cpu", "cpu_max_khz", "governor", "clock_source", "congestion_control", "congestion_controls"}
    assert {key for key in described["unknown"] if not of_interfaces(key)} == missing
    assert all(described[key] is None for key in missing)
    assert described["unknown"]["model"] == (
        f"{tmp_path}/proc/device-tree/model: is empty; {tmp_path}/sys/class/dmi/id/product_name: does not exist"
    )


def test_every_interface_has_its_link_and_a_reason_for_each_gap() -> None:
    """MTU, queue and offloads of the loopback; a speed, or why there is none."""
    described = describe_host(SYSTEM_CLOCK)
    loopback = described["interfaces"]["lo"]
    assert (loopback["up"], loopback["mtu"], loopback["kind"]) == (True, 65536, None)
    assert loopback["qdisc"] in ("noqueue", "pfifo", "pfifo_fast", "fq_codel")
    assert loopback["queue_packets"] == pytest.approx(1000, abs=1000)
    for name, interface in described["interfaces"].items():
        assert (interface["speed_mbit"] is None) == (f"interfaces.{name}.speed_mbit" in described["unknown"])
        assert (interface["offloads"] is None) == (f"interfaces.{name}.offloads" in described["unknown"])
    assert described["uptime_s"] > 0
