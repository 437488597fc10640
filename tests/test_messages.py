"""Every message that a user can meet, found in the source: one line that says what, where, and what to do.

A message that names no next step has its place in `docs/messages.md`, where the next step stands; a row there of which the
message is gone is in the way of a reader too. What passes on another's words (``{error}`` alone) is that other's business,
and what a probe could not read is no message but a reason in the manifest.

`tests/messages.txt` has all of them, errors and lines of the log: who adds or rewords one reads it there as a stranger.
``python -m tests.test_messages > tests/messages.txt`` writes it.
"""

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fltestbed import errors

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs" / "messages.md"
ALL = ROOT / "tests" / "messages.txt"
FAMILY = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.TestbedError)}
REFUSALS = {"JoinRefused", "NotJoined", "SessionLost"}
LOGGED = {"warning", "error", "exception", "info"}
LOGGERS = re.compile(r"^(log|logger|logging\.getLogger\(.*\))$")
NEXT_STEP = re.compile(
    r"; ?[a-z{]|\?$|pip install|apt install|\b(give|choose|so it is|use one of|please upgrade|lower|install|add|set|drop|"
    r"start|wait for|run as root|bring it up|at most|allowed|needs?|make (one|some|a new one)|try again|so give)\b"
)
PLACE = re.compile(
    r"\{|--\w|[a-z]+[.-][a-z]+|^(the server|the app|the ClientApp|this client|the S|bench|gcc|competing-flow|Flower|"
    r"emulated links|CIFAR|wirefilter)"
)
FILLED_IN = re.compile(r"\{[^}]*\}")
PASSED_ON = re.compile(r"^(\{[^}]*\}(: )?)*$")


@dataclass(frozen=True)
class Site:
    """Where a message is made, and its text with what is filled in as braces."""

    file: str
    line: int
    kind: str
    text: str

    @property
    def listed_as(self) -> str:
        """The text as the list has it."""
        return FILLED_IN.sub("…", self.text).replace("|", "\\|")

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.text}"


def text_of(node: ast.expr) -> str:
    """A string as it stands in the source; whatever is filled in is its name in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + re.sub(r"[{}]", "", ast.unparse(node.value)) + "}"
    return "{" + re.sub(r"[{}]", "", ast.unparse(node)) + "}"


def kind_of(call: ast.Call) -> str | None:
    """What kind of message a call makes; None if it makes none."""
    if isinstance(call.func, ast.Attribute) and LOGGERS.match(ast.unparse(call.func.value)):
        return f"log.{call.func.attr}" if call.func.attr in LOGGED else None
    name = ast.unparse(call.func).rpartition(".")[2]
    return name if name in FAMILY | REFUSALS else None


def filled_in(call: ast.Call) -> str:
    """The text of a message, with what is filled in as braces, as the arguments of a line of the log are, too."""
    values = iter(call.args[1:])

    def fill(_: re.Match[str]) -> str:
        return "{" + re.sub(r"[{}]", "", ast.unparse(next(values))) + "}"

    text = text_of(call.args[0])
    return re.sub(r"%\d*(\.\d+)?[a-z]", fill, text) if len(call.args) > 1 else text


def find_sites() -> list[Site]:
    """Every place in the packages where an error of the family, a refusal that a client shows, or a line of the log is made
    with a text.
    """
    sites: list[Site] = []
    for path in sorted([*(ROOT / "fltestbed").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("fltestbed/measure/probes/"):
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args)
        made = ((kind, call) for call in calls if (kind := kind_of(call)) is not None)
        sites.extend(Site(name, call.lineno, kind, filled_in(call)) for kind, call in made)
    return sites


SITES = find_sites()
OWN = [site for site in SITES if not PASSED_ON.match(site.text)]


def listed() -> dict[str, str]:
    """What to do, by message, from the rows of the list; ``…`` stands for what is filled in."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", LIST.read_text(), re.MULTILINE)
    return {message: advice for message, advice in rows if message != "message"}


def test_the_walk_finds_the_messages() -> None:
    """A hundred of them and more, of each kind of error, with their texts."""
    assert len(OWN) > 120
    assert {site.kind for site in SITES} == FAMILY | REFUSALS | {f"log.{level}" for level in LOGGED - {"error"}}
    assert any(site.text == "{folder}: exists already; choose another name with --name, or move it away" for site in OWN)


@pytest.mark.parametrize("site", OWN, ids=str)
def test_a_message_is_one_line(site: Site) -> None:
    """No line end, no full stop, no shouting, and short enough to be read."""
    filled = FILLED_IN.sub("x", site.text)
    assert "\n" not in filled, site
    assert not filled.endswith((".", "!")), site
    assert len(filled) < 260, site


@pytest.mark.parametrize("site", OWN, ids=str)
def test_a_message_says_where(site: Site) -> None:
    """A file, a key, a flag, an address, a host or a program: something that is filled in, or its name."""
    assert PLACE.search(site.text), site


def test_a_message_says_what_to_do() -> None:
    """In itself, or in the list."""
    known = listed()
    told = [site for site in OWN if site.kind not in ("log.info", "log.exception")]  # how it goes; a bug, with its traceback
    lacking = [str(site) for site in told if not NEXT_STEP.search(site.text) and site.listed_as not in known]
    assert not lacking, "\n".join(["say what to do, or add a row to docs/messages.md:", *lacking])


def test_the_list_is_of_messages_that_there_are() -> None:
    """A message that was reworded is listed under its new words, or not at all."""
    assert not listed().keys() - {site.listed_as for site in OWN}


def every_message() -> list[str]:
    """Each kind and text once, in the order of the alphabet."""
    return sorted({f"{site.kind}: {FILLED_IN.sub('…', site.text)}" for site in SITES})


def test_all_messages_are_known() -> None:
    """One that is new or reworded was read before it is shown to somebody, and one that is gone is not in the way."""
    known, found = set(ALL.read_text().splitlines()), set(every_message())
    changed = [*(f"+ {line}" for line in sorted(found - known)), *(f"- {line}" for line in sorted(known - found))]
    assert not changed, "\n".join(["read them, then: python -m tests.test_messages > tests/messages.txt", *changed])


@pytest.mark.parametrize("path", sorted((ROOT / "fltestbed" / "check").glob("*.py")), ids=lambda path: path.name)
def test_a_finding_says_what_to_do(path: Path) -> None:
    """A warning or an error of `fltestbed check` comes with an advice, unless it passes on a message that has one."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    told = [call for call in calls if ast.unparse(call.func) in ("warning", "error")]
    lacking = [call for call in told if len(call.args) < 3 and not PASSED_ON.match(text_of(call.args[1]))]
    assert not lacking, [f"{path.name}:{call.lineno}: {ast.unparse(call)}" for call in lacking]


if __name__ == "__main__":
    sys.stdout.write("\n".join([*every_message(), ""]))
