"""What a host is, for the manifest: enough to tell two runs apart, and what could not be read."""

import os
import platform
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

from fltestbed.clock import Clock

OFFLOADS = ("tx-tcp-segmentation", "tx-generic-segmentation", "tx-udp-segmentation", "rx-gro")
"""Features that make one large frame of many, or many of one: with them, a packet in a capture is not one on the wire."""

PACKAGES = ("fltestbed", "flwr", "torch", "torchvision", "numpy", "psutil", "pyroute2", "uvicorn", "httpx", "cryptography")


def describe_host(clock: Clock) -> dict[str, Any]:
    """Describe this host.

    Returns
    -------
    dict
        `name`, `model`, `kernel`, `python`, `cpu`, `cores`, `memory_bytes`, `governor`, `clock_source`,
        `congestion_control`, `interfaces`, `packages`, the wall clock as an anchor (`wall_ns` was read at `raw_ns`), and
        `unknown`: what could not be read, and why.
    """
    unknown: dict[str, str] = {}

    def read(key: str, *paths: str) -> str | None:
        for path in paths:
            try:
                return Path(path).read_text(errors="replace").strip("\0\n ")
            except OSError as error:
                unknown[key] = f"{path}: {error.strerror}"
        return None

    description: dict[str, Any] = {
        "name": socket.gethostname(),
        "model": read("model", "/proc/device-tree/model", "/sys/class/dmi/id/product_name"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": read("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_source": read("clock_source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "congestion_control": read("congestion_control", "/proc/sys/net/ipv4/tcp_congestion_control"),
        "interfaces": _interfaces(),
        "packages": package_versions(),
        "raw_ns": clock.raw_ns(),
        "wall_ns": clock.wall_ns(),
    }
    for key in [key for key in unknown if description.get(key)]:
        del unknown[key]  # a later path gave it
    description["unknown"] = unknown
    return description


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape a measurement, as installed; no import is made."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor()


def _offloads(interface: str) -> dict[str, bool] | None:
    """Which segmentation and merging the interface does itself; None where the kernel does not say."""
    try:
        ethtool = IoctlEthtool(interface)
    except OSError:
        return None
    try:
        features = ethtool.get_features()
    except (OSError, EthtoolError):
        return None
    finally:
        ethtool.close()
    return {name: bool(features[name]) for name in OFFLOADS if name in features}


def _interfaces() -> dict[str, dict[str, Any]]:
    addresses = psutil.net_if_addrs()
    return {
        name: {
            "up": status.isup,
            "speed_mbit": status.speed or None,
            "mtu": status.mtu,
            "offloads": _offloads(name),
            "addresses": [a.address for a in addresses.get(name, ()) if a.family in (socket.AF_INET, socket.AF_INET6)],
        }
        for name, status in psutil.net_if_stats().items()
    }
