"""What a USRP is told: sample rates and device strings, for OpenAirInterface and for srsRAN."""

from ipaddress import IPv4Address
from typing import Literal

from fltestbed.errors import ConfigError

Device = Literal["b200", "n300", "x300"]

USUAL_MHZ = {40: 61.44, 100: 122.88}
"""Million samples a second of a transform of 2048 (40 MHz) or 4096 (100 MHz) subcarriers of 30 kHz."""

SAMPLES_MHZ: dict[tuple[Device, int], float] = {
    ("b200", 40): 46.08, ("x300", 40): 46.08, ("n300", 40): 61.44, ("x300", 100): 92.16, ("n300", 100): 122.88,
}  # fmt: skip
"""Million samples a second that a device delivers for a bandwidth. Three quarters of the usual rate where USB (B210) or a
clock that does not divide to it (X300: 184.32) forbids the usual one."""


def samples_mhz(device: Device, bandwidth_mhz: int) -> float:
    """The sample rate.

    Raises
    ------
    ConfigError
        The device is too slow for the bandwidth.
    """
    rate = SAMPLES_MHZ.get((device, bandwidth_mhz))
    if rate is None:
        raise ConfigError(f"radio.device {device}: too slow for {bandwidth_mhz} MHz; take 40 MHz, or an n300 or x300")
    return rate


def oai_options(device: Device, bandwidth_mhz: int) -> tuple[str, ...]:
    """Options of nr-softmodem for the device: `-E` is the rate of three quarters."""
    options: list[str] = []
    if samples_mhz(device, bandwidth_mhz) < USUAL_MHZ[bandwidth_mhz]:
        options.append("-E")
    if device != "n300":
        options.append("--continuous-tx")
    if device != "b200":
        options += ["--usrp-tx-thread-config", "1"]
    return tuple(options)


def oai_address(device: Device, address: IPv4Address | None) -> str | None:
    """`sdr_addrs` of a network device; None for one on USB."""
    if address is None:
        return None
    management = f"mgmt_addr={address}," if device == "n300" else ""
    return f"{management}addr={address},clock_source=internal,time_source=internal"


def srsran_arguments(device: Device, address: IPv4Address | None) -> str:
    """`device_args` of srsRAN."""
    if device == "b200":
        return "type=b200,num_recv_frames=64,num_send_frames=64"
    if device == "n300":
        return f"type=n3xx,mgmt_addr={address},addr={address}"
    return f"type=x300,addr={address},master_clock_rate=184.32e6"
