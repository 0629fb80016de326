"""Dashboard, alerts and scraping: they parse, and what they name exists."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from listener.application.webhooks import Failing
from listener.infrastructure.clock import SystemClock
from listener.infrastructure.gateway.gateway_metrics import GatewayMetrics
from listener.infrastructure.observability.health import Health
from listener.infrastructure.observability.metrics import Metrics
from tests.fakes.webhooks import ENABLED, endpoint
from tests.integration.test_containers import TIMEOUT_S, compose

ROOT: Final = Path(__file__).resolve().parents[2]
OPERATIONS: Final = ROOT / "docs" / "operations"
RUNBOOK: Final = ROOT / "docs" / "operators.md"
OF_PROMETHEUS: Final = frozenset({"up"})
OF_TARGETS: Final = frozenset({"instance", "job"})
SELECTORS: Final = (promql_parser.VectorSelector, promql_parser.MatrixSelector)


def expositions() -> Iterator[Any]:
    """Families of the service and of the gateway, each labelled one with a sample."""
    health = Health(troubles={"node": "away"}, breakers=lambda: {"redis": "open"})
    service = Metrics(health, SystemClock())
    service.called("eth_getLogs", 0.1, [("eth_getLogs", "ok")])
    service.retried("node")
    service.handler_event("store", "skipped")
    service.webhooks_are({"one": (endpoint(), ENABLED._replace(failing=Failing(1, 1, 1, "away")))})
    gateway = GatewayMetrics()
    gateway.clients = lambda: {"websocket": 1}
    gateway.requested("/udf/history", "GET", 200, 0.1)
    gateway.sent("websocket", 1)
    gateway.dropped("slow")
    yield from text_string_to_metric_families((service.render() + gateway.render()).decode())


@pytest.fixture(scope="module")
def known() -> Mapping[str, list[Mapping[str, str]]]:
    """Labels of every sample by its name."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in expositions():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def alerts() -> list[dict[str, Any]]:
    """All rules."""
    groups = yaml.safe_load((OPERATIONS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((OPERATIONS / "dashboard.json").read_text())
    return found


def queries() -> list[tuple[str, str]]:
    """Name and expression of all queries of the dashboard, variables filled in."""
    found = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            found.append((panel["title"], text))
    return found


EXPRESSIONS: Final = [(rule["alert"], rule["expr"]) for rule in alerts()] + queries()


def selectors(expression: Any) -> Iterator[Any]:
    """Vector selectors within a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
        return
    for name in ("lhs", "rhs", "expr", "args", "param", "vector_selector"):
        part = getattr(expression, name, None)
        for each in part if isinstance(part, list) else [part]:
            if each is not None:
                yield from selectors(each)


@pytest.mark.parametrize(("name", "text"), EXPRESSIONS)
def test_expressions_ask_for_what_there_is(
    name: str, text: str, known: Mapping[str, list[Mapping[str, str]]]
) -> None:
    """Every metric exists with the labels that are matched; a fixed bound is one of the buckets'."""
    found = list(selectors(promql_parser.parse(text)))
    assert found or text == "vector(0)", name
    for selector in found:
        if selector.name in OF_PROMETHEUS:
            continue
        samples = known.get(selector.name)
        assert samples, f"{name}: no metric {selector.name}"
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_TARGETS:
                continue
            assert any(matcher.name in labels for labels in samples), f"{name}: no label {matcher.name}"
            if matcher.name == "le":
                assert any(labels["le"] == matcher.value for labels in samples), (
                    f"{name}: no bucket {matcher.value}"
                )


@pytest.mark.parametrize(("name", "text"), EXPRESSIONS)
def test_aggregations_keep_labels_that_exist(
    name: str, text: str, known: Mapping[str, list[Mapping[str, str]]]
) -> None:
    """`by (…)` of a label that no sample has would silently be one empty group."""
    names = {selector.name for selector in selectors(promql_parser.parse(text))} & known.keys()
    labels = {label for each in names for sample in known[each] for label in sample} | OF_TARGETS
    for group in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", text):
        assert {label.strip() for label in group.split(",")} <= labels, name


def test_alerts_say_what_to_do() -> None:
    """Unique names, a severity, a summary and a description that is more than the summary."""
    found = alerts()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["annotations"]["description"] != rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m")), rule["alert"]


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    """`runbook_url` leads to a heading of that name, whose entry says something; none without an alert."""
    text = RUNBOOK.read_text().partition("\n## Runbook\n")[2]
    entries = dict(re.findall(r"(?ms)^### (\w+)\n\n(.+?)(?=\n\n#|\Z)", text))
    names = {rule["alert"] for rule in alerts()}
    assert set(entries) == names
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/operators.md#{rule['alert'].lower()}"
        assert len(entries[rule["alert"]]) > 80, rule["alert"]


def test_panels_have_ids_and_places_of_their_own() -> None:
    """Grafana draws panels that overlap over each other, and drops ones with the same id."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]


def test_every_figure_is_described() -> None:
    """The document lists each family of the service and the gateway, and none that does not exist."""
    listed = set(re.findall(r"`((?:listener|gateway)_[a-z_]+)`", (OPERATIONS / "metrics.md").read_text()))
    families = {
        name
        for family in expositions()
        for name in [f"{family.name}{SUFFIXES.get(family.type, '')}"]
        if "_process_" not in name
    }
    assert listed == families


SUFFIXES: Final = {"counter": "_total", "info": "_info"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The compose file and the files that it mounts."""
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copytree(OPERATIONS, tmp_path / "docs" / "operations")
    return tmp_path


def monitoring(folder: Path) -> dict[str, dict[str, Any]]:
    """The services of the profile, as Compose understands them."""
    result = compose(folder, "--profile", "monitoring", "config", "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, dict[str, Any]] = json.loads(result.stdout)["services"]
    return {name: service for name, service in found.items() if "monitoring" in service.get("profiles", ())}


def test_the_profile_is_valid_and_mounts_what_exists(folder: Path) -> None:
    """Compose makes an empty folder of a file that is missing, and Prometheus then fails to start."""
    found = monitoring(folder)
    assert set(found) == {"prometheus", "grafana"}
    for name, service in found.items():
        mounts = [Path(volume["source"]) for volume in service["volumes"] if volume["type"] == "bind"]
        assert mounts, name
        assert all(mount.is_file() for mount in mounts), name
        assert all(volume.get("read_only") for volume in service["volumes"] if volume["type"] == "bind"), name
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert service["healthcheck"]["test"], name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name


def test_places_inside_the_containers_fit_together(folder: Path) -> None:
    """Rules, dashboards and the data source are where the configuration looks for them."""
    found = monitoring(folder)
    targets = {name: {volume["target"] for volume in service["volumes"]} for name, service in found.items()}
    prometheus = yaml.safe_load((OPERATIONS / "prometheus.yml").read_text())
    assert set(prometheus["rule_files"]) <= targets["prometheus"]
    provider = yaml.safe_load((OPERATIONS / "grafana" / "dashboards.yml").read_text())["providers"][0]
    assert any(target.startswith(provider["options"]["path"]) for target in targets["grafana"])
    source = yaml.safe_load((OPERATIONS / "grafana" / "datasource.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_the_listener_is_scraped_where_it_listens(folder: Path) -> None:
    """Name and port of the compose service, under the job's name that the alerts use."""
    jobs = yaml.safe_load((OPERATIONS / "prometheus.yml").read_text())["scrape_configs"]
    place = jobs[0]["dns_sd_configs"][0]
    result = compose(folder, "config", "--format", "json")
    listener = json.loads(result.stdout)["services"][place["names"][0]]
    assert str(place["port"]) == listener["environment"]["WEBSOCKET_PORT"]
    assert jobs[0]["job_name"] == "listener"
    assert any('job="listener"' in rule["expr"] for rule in alerts())


@pytest.mark.parametrize(
    "words",
    [("check", "rules", OPERATIONS / "alerts.yml"), ("test", "rules", ROOT / "tests/integration/alerts.yml")],
)
def test_promtool_accepts_the_rules(words: tuple[str, str, Path]) -> None:
    """Prometheus' own check, and alerts that begin when they should and not before."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    promtool = shutil.which("promtool", path=beside)
    assert promtool, "promtool is missing: `make test` gets it, or 'sudo apt-get install prometheus'"
    result = subprocess.run(
        [promtool, *map(str, words)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
