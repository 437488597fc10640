"""The flags of a Raspberry Pi's firmware, from both places that have them."""

from pathlib import Path

import pytest

from fltestbed.errors import HostError, TestbedError
from fltestbed.measure.probes.throttling import ThrottlingProbe, conditions, parse_flags
from fltestbed.measure.probes.tools import Toolbox
from tests.measure.probes.conftest import Install


@pytest.mark.parametrize(
    ("text", "flags"), [("throttled=0x50005\n", 0x50005), ("50005\n", 0x50005), ("0\n", 0), ("throttled=0x0", 0)]
)
def test_both_ways_to_write_the_word_are_read(text: str, flags: int) -> None:
    """`vcgencmd get_throttled` and the file below /sys."""
    assert parse_flags(text) == flags


@pytest.mark.parametrize("text", ["", "VCHI initialization failed", "throttled=", "-1", "123456789"])
def test_anything_else_is_refused(text: str) -> None:
    """What vcgencmd says without the right to its device is no word of flags."""
    with pytest.raises(TestbedError, match="is no word of flags"):
        parse_flags(text)


def test_bits_have_the_documented_meaning() -> None:
    """0x50005: undervoltage and throttled, both now and since boot."""
    assert conditions(0x50005) == conditions(0x50005 >> 16) == ["undervoltage", "throttled"]
    assert conditions(0xA) == ["frequency capped", "soft temperature limit"]
    assert conditions(0) == []


@pytest.mark.parametrize("device", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
def test_the_kernels_file_is_read_where_it_is(tmp_path: Path, tools: Toolbox, device: str) -> None:
    """The word now is a column; what was met while the probe read is told at the end."""
    file = tmp_path / device / "get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text("50000\n")
    probe = ThrottlingProbe(1.0, tools, tmp_path)
    assert probe.open() == {"reads": str(file), "since_boot": ["undervoltage", "throttled"]}
    assert probe.read() == [{"throttled_flags": "0x50000"}]
    file.write_text("50008\n")
    assert probe.read() == [{"throttled_flags": "0x50008"}]
    assert probe.close() == {"seen": ["soft temperature limit"]}


def test_without_the_file_vcgencmd_is_asked(tmp_path: Path, install: Install, tools: Toolbox) -> None:
    """As its documentation shows the answer."""
    install("vcgencmd", '[ "$1" = get_throttled ] && echo "throttled=0x1"')
    probe = ThrottlingProbe(1.0, tools, tmp_path)
    assert probe.open()["reads"] == "vcgencmd get_throttled"
    assert probe.read() == [{"throttled_flags": "0x1"}]
    assert probe.close() == {"seen": ["undervoltage"]}


def test_another_computer_has_no_flags(tmp_path: Path, install: Install, tools: Toolbox) -> None:
    """The reason names both places."""
    with pytest.raises(HostError, match=r"no Raspberry Pi firmware: no .*get_throttled, and vcgencmd is not installed"):
        ThrottlingProbe(1.0, tools, tmp_path).open()
