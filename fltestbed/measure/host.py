"""What a host is, for the manifest: enough to tell two runs apart, and what could not be read."""

import os
import platform
import socket
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError

from fltestbed import __version__
from fltestbed.clock import Clock
from fltestbed.measure.tcp import tcp_settings

IFF_UP = 1  # linux/if.h
OFFLOADS = ("tx-tcp-segmentation", "tx-generic-segmentation", "tx-udp-segmentation", "rx-gro")
"""Features that make one large frame of many, or many of one: with them, a packet in a capture is not one on the wire."""

PACKAGES = ("fltestbed", "flwr", "torch", "torchvision", "numpy", "psutil", "pyroute2", "uvicorn", "httpx", "cryptography")


class _Files:
    """Small files of the kernel below `root`, and why some could not be read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.unknown: dict[str, str] = {}

    def read(self, key: str, *patterns: str) -> str | None:
        """The contents of the first pattern that files match; of several files, what they say, without repetition."""
        problems = []
        for pattern in patterns:
            files = sorted(self._root.glob(pattern))
            said = []
            for file in files:
                try:
                    said.append(file.read_text(errors="replace").strip("\0\n "))
                except OSError as error:
                    problems.append(f"{file}: {error.strerror}")
            if any(said):
                return ", ".join(dict.fromkeys(filter(None, said)))
            if said or not files:
                problems.append(f"{self._root / pattern}: {'is empty' if files else 'does not exist'}")
        self.unknown[key] = "; ".join(problems)
        return None


def boot_id() -> str:
    """Name that the kernel gives to the time since the host was started; empty where it gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def describe_host(clock: Clock, root: Path = Path("/")) -> dict[str, Any]:
    """Describe this host.

    Parameters
    ----------
    clock : Clock
    root : Path
        Where /proc, /sys and /etc are.

    Returns
    -------
    dict
        `name`, `model` (of the board or machine), `os`, `kernel`, `machine` (instruction set), `python`, `cpu`, `cores`,
        `cpu_max_khz`, `memory_bytes`, `governor`, `clock_source`, `congestion_control` (the host's default),
        `congestion_controls` (what it has), `tcp` (as `fltestbed.measure.tcp.tcp_settings`), `uptime_s`, `interfaces`,
        `packages`, the wall clock as an anchor (`wall_ns` was read at `raw_ns`), and `unknown`: what could not be read, and
        why, by the key that is missing or None.
    """
    files = _Files(root)
    description: dict[str, Any] = {
        "name": socket.gethostname(),
        "model": files.read("model", "proc/device-tree/model", "sys/class/dmi/id/product_name"),
        "os": _os_name(files),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_name(files),
        "cores": os.cpu_count(),
        "cpu_max_khz": _integer(files.read("cpu_max_khz", "sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq")),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": files.read("governor", "sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"),
        "clock_source": files.read("clock_source", "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "congestion_control": files.read("congestion_control", "proc/sys/net/ipv4/tcp_congestion_control"),
        "congestion_controls": files.read("congestion_controls", "proc/sys/net/ipv4/tcp_available_congestion_control"),
        "tcp": tcp_settings(),
        "uptime_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
        "interfaces": _interfaces(files.unknown),
        "packages": package_versions(),
        "raw_ns": clock.raw_ns(),
        "wall_ns": clock.wall_ns(),
    }
    description["unknown"] = files.unknown
    return description


def toolkit_versions() -> dict[str, str]:
    """Versions that have to be the same on all hosts of a run: what they say to each other is not promised to others."""
    return {"fltestbed": __version__, "flwr": metadata.version("flwr")}


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape a measurement, as installed; no import is made."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_name(files: _Files) -> str | None:
    """Name of the processor: on x86-64 as /proc/cpuinfo has it, on a Pi from the device tree (``arm,cortex-a76``)."""
    for line in (files.read("cpu", "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return files.read("cpu", "proc/device-tree/cpus/cpu@0/compatible")


def _os_name(files: _Files) -> str | None:
    for line in (files.read("os", "etc/os-release", "usr/lib/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return None


def _integer(text: str | None) -> int | None:
    """The largest of the numbers in `text`: cores of one processor may differ."""
    numbers = [int(part) for part in (text or "").split(", ") if part.isdigit()]
    return max(numbers, default=None)


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


def _interfaces(unknown: dict[str, str]) -> dict[str, dict[str, Any]]:
    addresses = psutil.net_if_addrs()
    links = _links(unknown)
    interfaces = {}
    for name, status in psutil.net_if_stats().items():
        offloads = _offloads(name)
        if offloads is None:
            unknown[f"interfaces.{name}.offloads"] = "the driver does not answer ethtool's request for its features"
        if not status.speed:
            unknown[f"interfaces.{name}.speed_mbit"] = (
                "the driver states none, as usual for WiFi, modems and many virtual devices"
            )
        interfaces[name] = {
            "up": status.isup,
            "speed_mbit": status.speed or None,
            "duplex": _DUPLEX.get(status.duplex),
            "mtu": status.mtu,
            "offloads": offloads,
            "addresses": [a.address for a in addresses.get(name, ()) if a.family in (socket.AF_INET, socket.AF_INET6)],
        } | links.get(name, {})
    return interfaces


_DUPLEX = {psutil.NIC_DUPLEX_FULL: "full", psutil.NIC_DUPLEX_HALF: "half"}


def _links(unknown: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Of each interface the kind of virtual device (veth, tun; None for hardware), its queue, and its state (RFC 2863)."""
    try:
        with IPRoute() as route:
            links = list(route.get_links())
    except (OSError, NetlinkError) as error:
        unknown["interfaces.*.qdisc"] = f"the kernel does not answer requests for its links: {error}"
        return {}
    described = {}
    for link in links:
        info = link.get_attr("IFLA_LINKINFO")
        described[str(link.get_attr("IFLA_IFNAME"))] = {
            "kind": info.get_attr("IFLA_INFO_KIND") if info is not None else None,
            "qdisc": link.get_attr("IFLA_QDISC"),
            "queue_packets": link.get_attr("IFLA_TXQLEN"),
            "switched_on": bool(link["flags"] & IFF_UP),
            "carrier": bool(link.get_attr("IFLA_CARRIER")),
            "state": str(link.get_attr("IFLA_OPERSTATE")).lower(),
        }
    return described
