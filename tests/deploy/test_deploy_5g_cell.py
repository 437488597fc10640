"""The configurations of a cell: their syntax, and their values against each other and against the table."""

import csv
import ipaddress
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libconf
import make_cell
import pytest
import yaml
from cell_config import Cell, load_cell

DEPLOY = Path(__file__).parents[2] / "deploy" / "5g"
TABLE = DEPLOY / "cell.toml"
SECRET = re.compile(r"\b[0-9a-f]{32}\b")


def write_table(folder: Path, *changes: tuple[str, str]) -> Path:
    """The shipped table with other lines."""
    text = TABLE.read_text()
    for line, other in changes:
        assert line in text
        text = text.replace(line, other)
    (folder / "cell.toml").write_text(text)
    return folder / "cell.toml"


WIDE = (
    ("bandwidth-mhz = 40", "bandwidth-mhz = 100"),
    ("centre-mhz = 3619.2", "centre-mhz = 3450.72"),
    ('device = "b200"', 'device = "n300"'),
    ('# address = "192.168.10.2"', 'address = "192.168.10.2"'),
    ("antennas = 1 ", "antennas = 2 "),
    ('tdd = "DDDDDDDSUU"', 'tdd = "DDDSU"'),
    ('mcc = "001"', 'mcc = "262"'),
    ('mnc = "01"', 'mnc = "098"'),
    ("tac = 1", "tac = 4711"),
    ("sst = 1 ", "sst = 3 "),
    ('"192.168.70.128/26"', '"172.20.0.0/24"'),
    ('"10.45.0.0/24"', '"10.99.0.0/16"'),
    ("pi-2 = 3", "pi-2 = 3\npi-9 = 4711"),
)
"""Everything that can differ does."""


@pytest.fixture(scope="module", params=[(), WIDE], ids=["shipped", "other"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, Path]:
    """A table, and the folder that was made of it."""
    folder = tmp_path_factory.mktemp("cell")
    cell = load_cell(write_table(folder, *request.param))
    make_cell.write_cell(cell, folder / "out")
    return cell, folder / "out"


def as_text(file: Path) -> Any:
    """YAML whose scalars stay as they are written: OpenAirInterface reads 001 and not a number."""
    return yaml.load(file.read_text(), yaml.BaseLoader)


def gnb_of_oai(folder: Path) -> Any:
    return libconf.loads((folder / "oai" / "gnb.conf").read_text())


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def test_compose_files_are_of_the_compose_specification(made: tuple[Cell, Path]) -> None:
    """Both pass the specification's own schema."""
    files = [str(made[1] / core / "compose.yaml") for core in ("oai", "open5gs")]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_carrier_is_the_same_in_both_gnbs(made: tuple[Cell, Path]) -> None:
    """Blocks, frequencies, pattern and antennas are those of the table, up and down."""
    cell, folder = made
    carrier, tdd = cell.spectrum, cell.tdd
    gnb = gnb_of_oai(folder)["gNBs"][0]
    oai = gnb["servingCellConfigCommon"][0]
    for direction in ("dl", "ul"):
        assert oai[f"{direction}_carrierBandwidth"] == carrier.prb
        assert oai[f"{direction}_frequencyBand"] == 78
        assert oai[f"initial{direction.upper()}BWPlocationAndBandwidth"] == carrier.location_and_bandwidth
    assert oai["absoluteFrequencySSB"] * 15 == carrier.ssb_khz - 3_000_000 + 600_000 * 15
    assert oai["dl_absoluteFrequencyPointA"] * 15 == carrier.point_a_khz - 3_000_000 + 600_000 * 15
    assert oai["physCellId"] == cell.carrier.physical_cell
    radio = gnb_of_oai(folder)["RUs"][0]
    assert (radio["nb_tx"], radio["nb_rx"]) == (cell.radio.antennas,) * 2

    srsran = yaml.safe_load((folder / "srsran" / "gnb.yaml").read_text())["cell_cfg"]
    assert (srsran["dl_arfcn"], srsran["channel_bandwidth_MHz"]) == (carrier.centre_arfcn, carrier.bandwidth_mhz)
    assert (srsran["band"], srsran["common_scs"], srsran["pci"]) == (78, 30, cell.carrier.physical_cell)
    patterns = srsran["tdd_ul_dl_cfg"]
    assert patterns["dl_ul_tx_period"] == len(tdd.slots) == {5: 5, 6: 10}[oai["dl_UL_TransmissionPeriodicity"]]
    for kind, (name, oai_name) in {
        "slots": ("nof_{}_slots", "nrof{}Slots"), "symbols": ("nof_{}_symbols", "nrof{}Symbols"),
    }.items():  # fmt: skip
        expected = [tdd.downlink_slots, tdd.uplink_slots] if kind == "slots" else [tdd.special[0], tdd.special[2]]
        assert [patterns[name.format(direction)] for direction in ("dl", "ul")] == expected
        assert [oai[oai_name.format(direction)] for direction in ("Downlink", "Uplink")] == expected


def test_a_radio_with_noise_at_its_centre_sends_no_uplink_there(made: tuple[Cell, Path]) -> None:
    """An N300's four blocks around the middle of 273, which is in block 136; a B210 has none."""
    cell, folder = made
    kept_free = gnb_of_oai(folder)["gNBs"][0].get("ul_prbblacklist")
    assert kept_free == {"b200": None, "n300": "135,136,137,138"}[cell.radio.device]


def test_random_access_is_in_an_uplink_slot(made: tuple[Cell, Path]) -> None:
    """Configuration 98 has its occasions in the last slot of a frame of 20 (TS 38.211, table 6.3.3.2-3)."""
    cell, folder = made
    assert gnb_of_oai(folder)["gNBs"][0]["servingCellConfigCommon"][0]["prach_ConfigurationIndex"] == 98
    assert (cell.tdd.slots * (20 // len(cell.tdd.slots)))[19] == "U"


def test_network_area_and_slice_are_the_same_everywhere(made: tuple[Cell, Path]) -> None:
    """GNBs, AMFs, SMFs, UPFs and subscribers agree on PLMN, tracking area, slice and name of the data network."""
    cell, folder = made
    gnb = gnb_of_oai(folder)["gNBs"][0]
    (plmn,) = gnb["plmn_list"]
    assert f"{plmn['mcc']:03d}{plmn['mnc']:0{plmn['mnc_length']}d}" == cell.plmn
    assert gnb["tracking_area_code"] == cell.tac
    assert [one["sst"] for one in plmn["snssaiList"]] == [cell.sst]

    core = as_text(folder / "oai" / "config.yaml")
    (area,) = core["amf"]["plmn_support_list"]
    assert (area["mcc"] + area["mnc"], int(area["tac"], 16), area["nssai"]) == (
        cell.plmn,
        cell.tac,
        [{"sst": str(cell.sst)}],
    )
    assert {one["mcc"] + one["mnc"] for one in core["amf"]["served_guami_list"]} == {cell.plmn}
    slice_ = {"sst": str(cell.sst)}
    for info, names in (
        (core["smf"]["smf_info"]["sNssaiSmfInfoList"], "dnnSmfInfoList"),
        (core["upf"]["upf_info"]["sNssaiUpfInfoList"], "dnnUpfInfoList"),
    ):
        assert info == [{"sNssai": slice_, names: [{"dnn": cell.dnn}]}]
    (local,) = core["smf"]["local_subscription_infos"]
    assert (local["single_nssai"], local["dnn"]) == (slice_, cell.dnn)
    (dnn,) = core["dnns"]
    assert (dnn["dnn"], dnn["ipv4_subnet"]) == (cell.dnn, str(cell.network.clients))

    open5gs = yaml.safe_load((folder / "open5gs" / "open5gs.yaml").read_text())
    assert sorted(set(open5gs) - {"logger"}) == sorted(
        set(yaml.safe_load((folder / "open5gs" / "compose.yaml").read_text())["services"]) - {"mongo"}
    )
    plmn_id = {"mcc": cell.mcc, "mnc": cell.mnc}
    amf = open5gs["amf"]
    assert [one["plmn_id"] for one in amf["guami"] + open5gs["nrf"]["serving"]] == [plmn_id] * 2
    assert amf["tai"] == [{"plmn_id": plmn_id, "tac": cell.tac}]
    assert amf["plmn_support"] == [{"plmn_id": plmn_id, "s_nssai": [{"sst": cell.sst}]}]
    assert open5gs["nssf"]["sbi"]["client"]["nsi"][0]["s_nssai"] == {"sst": cell.sst}
    for part in ("smf", "upf"):
        (session,) = open5gs[part]["session"]
        assert (session["subnet"], session["dnn"]) == (str(cell.network.clients), cell.dnn)
        assert ipaddress.ip_address(session["gateway"]) in cell.network.clients

    srsran = yaml.safe_load((folder / "srsran" / "gnb.yaml").read_text())
    (tracking,) = srsran["cu_cp"]["amf"]["supported_tracking_areas"]
    supported = [{"plmn": cell.plmn, "tai_slice_support_list": [{"sst": cell.sst}]}]
    assert tracking == {"tac": cell.tac, "plmn_list": supported}
    assert (srsran["cell_cfg"]["plmn"], srsran["cell_cfg"]["tac"]) == (cell.plmn, cell.tac)
    assert srsran["cell_cfg"]["slicing"] == [{"sst": cell.sst}]


def test_addresses_fit_each_other(made: tuple[Cell, Path]) -> None:
    """Every part has an address of its own in the core's network; gNBs are the gateway and know the AMF."""
    cell, folder = made
    gnb = gnb_of_oai(folder)["gNBs"][0]
    interfaces = gnb["NETWORK_INTERFACES"]
    srsran = yaml.safe_load((folder / "srsran" / "gnb.yaml").read_text())
    for core, amf, known_amf, gnb_address in (
        ("oai", "oai-amf", gnb["amf_ip_address"][0]["ipv4"], interfaces["GNB_IPV4_ADDRESS_FOR_NG_AMF"].split("/")[0]),
        ("open5gs", "amf", srsran["cu_cp"]["amf"]["addr"], srsran["cu_cp"]["amf"]["bind_addr"]),
    ):
        compose = yaml.safe_load((folder / core / "compose.yaml").read_text())
        network = compose["networks"]["core"]
        (pool,) = network["ipam"]["config"]
        addresses = {name: service["networks"]["core"]["ipv4_address"] for name, service in compose["services"].items()}
        taken = [*addresses.values(), pool["gateway"]]
        assert len(set(taken)) == len(taken)
        assert all(ipaddress.ip_address(address) in ipaddress.ip_network(pool["subnet"]) for address in taken)
        assert not ipaddress.ip_network(pool["subnet"]).overlaps(cell.network.clients)
        assert (addresses[amf], pool["gateway"]) == (known_amf, gnb_address) == (known_amf, str(cell.host))
        assert network["driver_opts"]["com.docker.network.bridge.name"] == cell.network.bridge
        route = dict(line.split("=") for line in (folder / core / "network.env").read_text().splitlines()[1:])
        assert route["UPF"] == addresses["oai-upf" if core == "oai" else "upf"]
        assert (route["CLIENTS"], route["BRIDGE"]) == (str(cell.network.clients), cell.network.bridge)
    assert interfaces["GNB_IPV4_ADDRESS_FOR_NGU"] == interfaces["GNB_IPV4_ADDRESS_FOR_NG_AMF"]
    assert srsran["cu_up"]["ngu"]["socket"] == [{"bind_addr": str(cell.host)}]
    assert interfaces["GNB_INTERFACE_NAME_FOR_NGU"] == interfaces["GNB_INTERFACE_NAME_FOR_NG_AMF"] == cell.network.bridge

    open5gs = yaml.safe_load((folder / "open5gs" / "open5gs.yaml").read_text())
    own = yaml.safe_load((folder / "open5gs" / "compose.yaml").read_text())["services"]
    for part, section in open5gs.items():
        for interface in ("sbi", "ngap", "pfcp", "gtpu"):
            for server in section.get(interface, {}).get("server", []):
                assert server["address"] == own[part]["networks"]["core"]["ipv4_address"]
    asked = re.findall(r"http://([\d.]+):7777", (folder / "open5gs" / "open5gs.yaml").read_text())
    assert set(asked) == {own["nrf"]["networks"]["core"]["ipv4_address"]}


def test_no_packet_of_a_modem_is_cut_in_two(made: tuple[Cell, Path]) -> None:
    """With 44 bytes of GTP-U, UDP and IP it fits the bridge: 1456 + 44 = 1500."""
    cell, folder = made
    assert int(as_text(folder / "oai" / "config.yaml")["smf"]["ue_mtu"]) + 44 == cell.network.mtu == 1500
    open5gs = yaml.safe_load((folder / "open5gs" / "open5gs.yaml").read_text())
    assert open5gs["smf"]["mtu"] == 1456


def test_sims_and_both_cores_have_the_same_keys(made: tuple[Cell, Path]) -> None:
    """Each subscriber of the table, with 15 digits and keys of its own, and nobody else."""
    cell, folder = made
    kept = json.loads((folder / "keys.json").read_text())["sims"]
    with (folder / "sims.csv").open() as file:
        sims = {row["imsi"]: row for row in csv.DictReader(file)}
    assert {row["client"]: imsi for imsi, row in sims.items()} == cell.imsis
    assert all(re.fullmatch(cell.plmn + r"\d+", imsi) and len(imsi) == 15 for imsi in sims)
    keys = {imsi: {"key": row["key"], "opc": row["opc"]} for imsi, row in sims.items()}
    assert keys == kept
    assert len({key for pair in kept.values() for key in pair.values()}) == 2 * len(kept)
    assert {row["apn"] for row in sims.values()} == {cell.dnn}

    sql = (folder / "oai" / "subscribers.sql").read_text()
    records = re.findall(r"\('(\d+)', '(\d+)', '5G_AKA', '(\w+)', '(\w+)', '(\w+)', 'milenage', '8000'", sql)
    assert {imsi: {"key": key, "opc": opc} for imsi, _, key, _, opc in records} == kept
    assert all(imsi == supi and key == same for imsi, supi, key, same, _ in records)
    for imsi, plmn, nssai, networks in re.findall(r"\('(\d+)', '(\d+)', '(\{.*\})',\n   '(\{.*\})'\)", sql):
        assert (plmn, imsi in kept) == (cell.plmn, True)
        assert json.loads(nssai) == {"sst": cell.sst, "sd": "16777215"}
        assert list(json.loads(networks)) == [cell.dnn]
    known = ", ".join(f"'{imsi}'" for imsi in kept)
    assert sql.count(f"WHERE ueid NOT IN ({known});") == 2

    script = (folder / "open5gs" / "subscribers.js").read_text()
    records = re.findall(r'"(\d{15})": \{client: "([\w-]+)", k: "(\w+)", opc: "(\w+)"\}', script)
    assert {imsi: {"key": key, "opc": opc} for imsi, _, key, opc in records} == kept
    assert {client: imsi for imsi, client, _, _ in records} == cell.imsis
    assert f'name: "{cell.dnn}"' in script
    assert f"sst: {cell.sst}," in script


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_for_the_database_does_what_it_says(made: tuple[Cell, Path], tmp_path: Path) -> None:
    """Run with a database that writes down what it is asked: strangers deleted, subscribers set, no sequence number."""
    cell, folder = made
    stand_in = """
    const said = [];
    globalThis.connect = uri => ({subscribers: {
      deleteMany: which => said.push(["delete", which]),
      updateOne: (which, change, how) => said.push(["update", which, change, how]),
    }});
    """
    script = (folder / "open5gs" / "subscribers.js").read_text()
    (tmp_path / "run.js").write_text(f"{stand_in}{script}\nconsole.log(JSON.stringify(said))")
    done = subprocess.run(["node", str(tmp_path / "run.js")], capture_output=True, text=True, check=True)
    (delete, *updates) = json.loads(done.stdout)
    imsis = list(cell.imsis.values())
    assert delete == ["delete", {"imsi": {"$nin": imsis}}]
    assert [(update[1], update[3]) for update in updates] == [({"imsi": imsi}, {"upsert": True}) for imsi in imsis]
    keys = json.loads((folder / "keys.json").read_text())["sims"]
    for imsi, (_, _, change, _) in zip(imsis, updates, strict=True):
        told = change["$set"]
        assert {"key": told["security.k"], "opc": told["security.opc"]} == keys[imsi]
        assert "security" not in told  # which would put the sequence number back
        assert (told["slice"][0]["sst"], told["slice"][0]["session"][0]["name"]) == (cell.sst, cell.dnn)


def test_the_password_of_the_database_is_the_same_and_drawn(made: tuple[Cell, Path]) -> None:
    """In what the database is told and what asks it."""
    _, folder = made
    password = json.loads((folder / "keys.json").read_text())["database_password"]
    mysql = dict(line.split("=", 1) for line in (folder / "oai" / "database.env").read_text().splitlines())
    core = as_text(folder / "oai" / "config.yaml")["database"]
    assert (core["user"], core["password"], core["database_name"]) == (
        mysql["MYSQL_USER"],
        password,
        mysql["MYSQL_DATABASE"],
    )
    assert {mysql["MYSQL_PASSWORD"], mysql["MYSQL_ROOT_PASSWORD"]} == {password}
    mongo = dict(line.split("=", 1) for line in (folder / "open5gs" / "database.env").read_text().splitlines())
    assert mongo["DB_URI"].startswith(f"mongodb://{mongo['MONGO_INITDB_ROOT_USERNAME']}:{password}@")
    assert mongo["MONGO_INITDB_ROOT_PASSWORD"] == password


def test_secrets_are_where_others_cannot_read_them(made: tuple[Cell, Path]) -> None:
    """A file with a key or a password has mode 0600, and the folder 0700; what is open to all has none."""
    _, folder = made
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)) for path in files} == {*make_cell.FILES, "keys.json"}
    for path in files:
        assert path.stat().st_mode & 0o777 == (0o600 if SECRET.search(path.read_text()) else 0o644), path


def test_the_repository_has_no_key() -> None:
    """Nothing in deploy/5g looks like one."""
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert not re.search(r"[0-9A-Fa-f]{32}", path.read_text()), path


def test_a_second_run_changes_nothing_and_a_new_sim_only_itself(tmp_path: Path) -> None:
    """Keys stay as they are; another folder has others."""
    first, second = tmp_path / "a", tmp_path / "b"
    cell = load_cell(TABLE)
    assert len(make_cell.write_cell(cell, first)) == len(make_cell.FILES)
    before = json.loads((first / "keys.json").read_text())
    assert make_cell.write_cell(cell, first) == []
    larger = load_cell(write_table(tmp_path, ("pi-2 = 3", "pi-2 = 3\npi-3 = 4")))
    made = {str(path.relative_to(first)) for path in make_cell.write_cell(larger, first)}
    assert made == {"oai/subscribers.sql", "open5gs/subscribers.js", "sims.csv"}
    after = json.loads((first / "keys.json").read_text())
    assert after["database_password"] == before["database_password"]
    assert {imsi: after["sims"][imsi] for imsi in before["sims"]} == before["sims"]
    make_cell.write_cell(cell, second)
    other = json.loads((second / "keys.json").read_text())
    assert set(SECRET.findall(json.dumps(other))).isdisjoint(SECRET.findall(json.dumps(after)))


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("bandwidth-mhz = 40", "bandwidth-mhz = 35", "carrier.bandwidth-mhz"),
        ("bandwidth-mhz = 40", "bandwidth-mhz = 100", "radio.device b200: too slow for 100 MHz"),
        ("centre-mhz = 3619.2", "centre-mhz = 3619.21", "not on the raster"),
        ('tdd = "DDDDDDDSUU"', 'tdd = "DDDDDDDSUS"', "then U"),
        ("tac = 1 ", "tac = 65534 ", "tac"),
        ('device = "b200"', 'device = "n300"', "address belongs to an n300 or x300"),
        ('"10.45.0.0/24"', '"192.168.70.0/24"', "overlap"),
        ('"192.168.70.128/26"', '"192.168.70.130/26"', "network.core"),
        ("pi-1 = 2", "pi-1 = 1", "each with a number of its own"),
        ("pi-1 = 2", "pi-1 = 99999999999", "10 digits at most"),
        ("sst = 1 ", "slice = 1 ", "slice: unknown key"),
        ('"/opt/openairinterface5g"', '"~/oai"', "oai.checkout: give the whole path"),
        ('dnn = "fltestbed"', 'dnn = "a\\"b"', "dnn"),
    ],
)
def test_a_table_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, other: str, said: str
) -> None:
    """The file and the key are named, the status is 2, and nothing is written."""
    table = write_table(tmp_path, (line, other))
    assert make_cell.main([str(table), "-o", str(tmp_path / "out")]) == 2
    assert f"{table}: " in (told := capsys.readouterr().err)
    assert said in told
    assert not (tmp_path / "out").exists()


def test_keys_that_others_may_read_or_that_are_damaged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no message has a key."""
    keys = tmp_path / "keys.json"
    assert make_cell.main([str(TABLE), "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    keys.chmod(0o644)
    assert make_cell.main([str(TABLE), "-o", str(tmp_path)]) == 1
    assert "chmod 600" in capsys.readouterr().err
    keys.chmod(0o600)
    secret = json.loads(keys.read_text())["database_password"]
    keys.write_text(keys.read_text().replace(secret, secret + "X"))
    assert make_cell.main([str(TABLE), "-o", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "not a file of keys" in told
    assert not re.search(r"[0-9a-f]{32}", told)


def test_what_a_table_means_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`--explain` prints it and writes nothing; the ceiling is that of one layer of 64QAM."""
    assert make_cell.main([str(TABLE), "--explain", "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "106 blocks of 360 kHz" in told
    assert "uplink 36.4 Mbit/s" in told
    assert "clients find the server at 192.168.70.129" in told
    assert "nr-softmodem -O gnb.conf --sa -E --continuous-tx" in told
    assert not (tmp_path / "out").exists()
