"""Make the configurations of a 5G cell from one table: `make_cell.py cell.toml -o FOLDER`.

For OpenAirInterface (`oai/`) and for srsRAN with Open5GS (`srsran/`, `open5gs/`): gNB, core, subscribers. Keys are drawn
once and kept in FOLDER/keys.json; a second run with the same table changes nothing. `--explain` prints what the table means
for the air interface and writes nothing.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import nr
import usrp
from cell_config import OAI_PARTS, OPEN5GS_PARTS, Cell, load_cell
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sim_keys import Keys, keep_keys

from fltestbed.errors import ConfigError, TestbedError
from fltestbed.security.files import PRIVATE_MODE, PUBLIC_MODE, replace

TEMPLATES = Path(__file__).parent / "templates"

FILES = {
    "oai/gnb.conf": PUBLIC_MODE,
    "oai/compose.yaml": PUBLIC_MODE,
    "oai/config.yaml": PRIVATE_MODE,
    "oai/database.env": PRIVATE_MODE,
    "oai/network.env": PUBLIC_MODE,
    "oai/subscribers.sql": PRIVATE_MODE,
    "srsran/gnb.yaml": PUBLIC_MODE,
    "open5gs/compose.yaml": PUBLIC_MODE,
    "open5gs/open5gs.yaml": PUBLIC_MODE,
    "open5gs/database.env": PRIVATE_MODE,
    "open5gs/network.env": PUBLIC_MODE,
    "open5gs/subscribers.js": PRIVATE_MODE,
    "sims.csv": PRIVATE_MODE,
}
"""What is made, and who may read it: 0600 where a secret is in it."""


def main(arguments: list[str]) -> int:
    """Make the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a TOML file like cell.toml")
    parser.add_argument("-o", "--output", type=Path, default=Path("cell"), help="folder to write into; default: cell")
    parser.add_argument("--explain", action="store_true", help="print frequencies and ceilings, write nothing")
    options = parser.parse_args(arguments)
    try:
        cell = load_cell(options.table)
        if not options.explain:
            for path in write_cell(cell, options.output):
                print(f"made {path}")
        print(explain(cell))
    except TestbedError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def write_cell(cell: Cell, folder: Path) -> list[Path]:
    """Write what is not there already with the same content, and return it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = keep_keys(folder / "keys.json", cell.imsis.values())
        made = []
        for name, text in render(cell, keys).items():
            path, mode = folder / name, FILES[name]
            if not path.is_file() or path.read_text() != text or path.stat().st_mode & 0o777 != mode:
                replace(path, text.encode(), mode)
                made.append(path)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}; give another folder with -o") from error
    return made


def render(cell: Cell, keys: Keys) -> dict[str, str]:
    """The text of every file, by its name."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # values are checked, and it is no HTML
    )  # fmt: skip
    jinja.filters["shell"] = lambda value: shlex.quote(str(value))
    return {name: jinja.get_template(f"{name}.j2").render(_values(cell, keys, name)) for name in FILES}


def _values(cell: Cell, keys: Keys, name: str) -> dict[str, Any]:
    parts = OAI_PARTS if name.startswith("oai/") else OPEN5GS_PARTS
    device, bandwidth_mhz = cell.radio.device, cell.spectrum.bandwidth_mhz
    return {
        "cell": cell, "carrier": cell.spectrum, "tdd": cell.tdd, "nr": nr, "at": cell.addresses(parts), "parts": parts,
        "password": keys.database_password,
        "sims": [(client, imsi, keys.sims[imsi]) for client, imsi in cell.imsis.items()],
        "samples_mhz": usrp.samples_mhz(device, bandwidth_mhz),
        "oai_address": usrp.oai_address(device, cell.radio.address),
        "srsran_arguments": usrp.srsran_arguments(device, cell.radio.address),
        "core": name.split("/", maxsplit=1)[0],
    }  # fmt: skip


def explain(cell: Cell) -> str:
    """What the table means, in a few lines."""
    carrier, tdd = cell.spectrum, cell.tdd
    half_khz = carrier.bandwidth_mhz * 500
    uplink, downlink = (
        nr.ceiling_bps(tdd, carrier.prb, direction, layers, 6) / 1e6
        for direction, layers in (("uplink", 1), ("downlink", cell.radio.antennas))
    )
    options = " ".join(usrp.oai_options(cell.radio.device, carrier.bandwidth_mhz))
    return f"""\
channel   n78, {(carrier.centre_khz - half_khz) / 1e3:g} to {(carrier.centre_khz + half_khz) / 1e3:g} MHz, \
{carrier.prb} blocks of 360 kHz, guard {carrier.guard_khz:g} kHz
arfcn     centre {carrier.centre_arfcn}, point A {nr.arfcn(carrier.point_a_khz)}, \
synchronisation {nr.arfcn(carrier.ssb_khz)} (GSCN {carrier.ssb_gscn})
tdd       {tdd.slots}, period {tdd.period_ms:g} ms, uplink {tdd.share("uplink"):.0%} of the time, \
next uplink slot after {tdd.uplink_wait_ms:.2f} ms on average
ceiling   uplink {uplink:.1f} Mbit/s (64QAM, one layer), downlink {downlink:.1f} Mbit/s (64QAM, \
layers: {cell.radio.antennas}), of all modems together
network   clients find the server at {cell.host}; modems: {cell.network.clients}, MTU {cell.ue_mtu}, APN {cell.dnn}
gNB       nr-softmodem -O gnb.conf --sa {options}"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
