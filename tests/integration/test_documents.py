"""The documents: what they name exists, and what exists is named."""

import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from listener import main, wiring
from listener.config.settings import Settings, load_settings
from listener.domain.facts import Fact, Malformed, MarketAnnounced, Swapped
from listener.infrastructure.blockchain.venues import BondingCurve
from listener.infrastructure.blockchain.venues.venue import decode_log
from listener.infrastructure.blockchain.wire import Log

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLE: Final = ROOT / "env.example"
OPERATIONS: Final = ROOT / "docs" / "operations.md"
GUARANTEES: Final = ROOT / "docs" / "guarantees.md"
CONTRIBUTING: Final = ROOT / "CONTRIBUTING.md"
REQUIRED: Final = "BONDING_CURVE_FACTORY_ADDRESS"
SKIPPED: Final = {"node_modules", ".venv", ".git", ".pytest_cache", ".hypothesis", "build", "dist"}

ASSIGNMENT: Final = re.compile(r"(?m)^(#?)([A-Z][A-Z0-9_]*)=(.*)$")
LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE: Final = re.compile(r"(?ms)^```.*?^```")
NAMED_TEST: Final = re.compile(r"`(tests/[\w./-]+)(?:::(\w+))?`")


def documents() -> list[Path]:
    """All Markdown files of the project."""
    return sorted(
        path for path in ROOT.rglob("*.md") if not SKIPPED.intersection(path.relative_to(ROOT).parts)
    )


def anchors(path: Path) -> set[str]:
    """Headings of a document as the last part of a link."""
    headings = re.findall(r"(?m)^#+ (.+)$", FENCE.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def environment_name(field: str) -> str:
    """The name under which a setting is documented."""
    return field.upper()


@pytest.fixture(autouse=True)
def no_settings_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's environment nor a `.env` takes part."""
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_name(field), raising=False)
    monkeypatch.delenv("ENV", raising=False)
    monkeypatch.chdir(tmp_path)


def test_example_names_every_setting_once_and_no_other() -> None:
    """A setting that is not documented cannot be found, one that is not read misleads."""
    named = [name for _, name, _ in ASSIGNMENT.findall(EXAMPLE.read_text())]
    assert len(named) == len(set(named))
    assert set(named) == {environment_name(field) for field in Settings.model_fields}


def test_example_explains_every_setting() -> None:
    """Each group of assignments follows a comment."""
    for group in re.split(r"\n\s*\n", EXAMPLE.read_text()):
        first = ASSIGNMENT.search(group)
        if first:
            assert group.startswith("# "), group
            assert first.start() > 20, group


def test_example_loads_as_it_is() -> None:
    """`cp env.example .env` gives a working configuration: the required settings are set, no others."""
    settings = load_settings(_env_file=EXAMPLE)
    assert settings.model_fields_set == {REQUIRED.lower()}
    assert "required" in EXAMPLE.read_text().partition(f"{REQUIRED}=")[0].rpartition("\n\n")[2]


def test_example_shows_the_defaults(tmp_path: Path) -> None:
    """With every comment sign in front of a setting removed, nothing changes."""
    every = tmp_path / "every.env"
    every.write_text(ASSIGNMENT.sub(r"\2=\3", EXAMPLE.read_text()))
    shown, defaults = load_settings(_env_file=every), load_settings(_env_file=EXAMPLE)
    assert shown.model_dump() == defaults.model_dump()


def test_required_settings_are_set_in_the_example() -> None:
    """What has no default stands without a comment sign."""
    active = {name for sign, name, _ in ASSIGNMENT.findall(EXAMPLE.read_text()) if not sign}
    required = {
        environment_name(name) for name, field in Settings.model_fields.items() if field.is_required()
    }
    assert active == required


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    """A link to a file of the project leads to a file of the project."""
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z][a-z+.-]*:|#", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve()
        assert linked.is_relative_to(ROOT), target
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_exit_code_is_explained() -> None:
    """Operators look exit codes up; those of the docstring are all there are."""
    text = (main.__doc__ or "").partition("Exit codes:")[2]
    codes = set(re.findall(r"(?:^|;)\s*(\d+) ", text))
    assert codes >= {"0", "1", "2", "3", "4", "5", "7"}
    assert set(re.findall(r"(?m)^\| `(\d+)` \|", OPERATIONS.read_text())) == codes


def test_every_setting_named_in_operations_exists() -> None:
    """Names in capitals with an underscore are settings of the listener, of the stack or of the contracts."""
    known = {environment_name(field) for field in Settings.model_fields} | {
        "CHAIN_PORT",
        "CHART_PORT",
        "GATEWAY_PORT",
    }
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", OPERATIONS.read_text()))
    assert named <= known, named - known


def test_tests_named_in_guarantees_exist() -> None:
    """A promise points to the test that tries to break it, and the test is there."""
    named = NAMED_TEST.findall(GUARANTEES.read_text())
    assert named
    for file, name in named:
        path = ROOT / file
        assert path.exists(), file
        if name:
            assert re.search(rf"(?m)^\s*(async )?def {name}\(", path.read_text()), f"{file}::{name}"


def test_worked_example_of_a_venue_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The venue in CONTRIBUTING.md can be pasted as it stands: facts from logs, a refusal of bad ones."""
    example = re.search(r"(?ms)^```python\n(.*?)^```", CONTRIBUTING.read_text())
    assert example
    module = ModuleType("example_venue")
    exec(compile(example[1], "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102 - our own document
    venue = module.Acme
    monkeypatch.setattr(wiring, "ALL", (*wiring.ALL, venue))
    assert wiring.decoders().keys() > venue.decoders.keys()
    assert wiring.layouts().keys() == BondingCurve.layouts.keys()
    contract, token, account = "0x" + "Ab" * 20, "0x" + "1" * 40, "0x" + "2" * 40

    def said(first_topic: str, *data: int) -> Fact | None:
        topics = [first_topic, *("0x" + "0" * 24 + address[2:] for address in (token, account))]
        words = "0x" + "".join(f"{word:064x}" for word in data)
        log = Log(contract, topics, words, "0x1", "0x" + "3" * 64, "0x" + "4" * 64, "0x5")
        return decode_log(log, venue.decoders)

    announced = said(module.LAUNCHED)
    assert isinstance(announced, MarketAnnounced)
    assert (announced.announcer, announced.market, announced.creator) == (contract.lower(), token, account)
    for first_topic, is_buy in ((module.BOUGHT, True), (module.SOLD, False)):
        swap = said(first_topic, 7, 9)
        assert isinstance(swap, Swapped)
        assert swap.source == announced.source
        assert (swap.is_buy, swap.base, swap.quote, swap.log_index) == (is_buy, 7, 9, 5)
        assert isinstance(said(first_topic, 7), Malformed)


def test_decision_records_are_numbered_without_gaps() -> None:
    """`docs/adr/NNNN-title.md`, from 0001 on."""
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
