"""The rules and the dashboard in deploy/ work on what a real Prometheus has scraped from the real server."""

import json
import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.problems import FAILURES
from tests.conftest import ROOT, Factory
from tests.end_to_end.conftest import running_server
from tests.needs import PROMETHEUS

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "eca-inspect.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
WITHOUT_DATA = {"Device memory": "the server runs on a CPU here"}
RULES = [
    rule
    for path in sorted((DEPLOY / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
PNG = {"Content-Type": "image/png"}


def test_promtool_finds_no_fault_in_metrics_configuration_and_rules(client: httpx.Client):
    promtool = PROMETHEUS.program("promtool")
    text = client.get("/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert [line for line in checked.stderr.splitlines() if "inspect_" in line] == []
    for command in (
        ["check", "config", DEPLOY / "prometheus.yml"],
        ["test", "rules", *(DEPLOY / "tests").glob("*.yml")],
    ):
        done = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_and_a_row_in_the_documentation():
    alerts = {rule["alert"] for rule in RULES if "alert" in rule}
    tested = {
        (case["alertname"], bool(case["exp_alerts"]))
        for path in (DEPLOY / "tests").glob("*.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert tested == {(alert, fires) for alert in alerts for fires in (True, False)}
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"^\| `(Inspect\w+)`", page, re.MULTILINE)) == alerts


def test_the_rules_count_every_failure_of_an_image_and_nothing_else():
    ratios = [rule["expr"] for rule in RULES if rule.get("record", "").startswith("instance:inspect_errors:")]
    assert len(ratios) == 5
    assert all(f'outcome=~"{"|".join(FAILURES)}"' in ratio for ratio in ratios)


def test_grafana_finds_its_data_source_and_its_dashboard():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    named = {target["datasource"]["uid"] for panel in PANELS.values() for target in panel["targets"]}
    named |= {variable["datasource"]["uid"] for variable in DASHBOARD["templating"]["list"]}
    assert named == {source["uid"]}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in services
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in services["grafana"]["volumes"])
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "eca-inspect.yml").read_text())["providers"]
    assert mounts == {
        "./deploy/grafana/provisioning": "/etc/grafana/provisioning",
        "./deploy/grafana/dashboards": provider["options"]["path"],
    }
    assert "./deploy/rules:/etc/prometheus/rules:ro" in services["prometheus"]["volumes"]
    assert services["grafana"]["ports"] == ["127.0.0.1:3000:3000"]


@dataclass
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: object) -> Any:
        """What its API answers; an error of a query is an assertion error."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """All values of the last two minutes that are numbers."""
        now = time.time()
        found = self.get("query_range", query=expression, start=now - 120, end=now, step=1)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if not math.isnan(value)]

    def wait_for(self, expression: str) -> None:
        """Returns when the expression has a value."""
        deadline = time.monotonic() + 120
        while not self.get("query", query=expression)["result"]:
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has scraped, every second, a server that one category of three is refused by, before and after some load."""
    binary = PROMETHEUS.program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    weights = Path(shutil.copytree(factory.weights, folder / "weights"))
    (weights / "brushed" / "card.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running_server(weights, device="cpu") as server:
        configuration = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(DEPLOY / pattern) for pattern in configuration["rule_files"]]
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            started = Prometheus(f"http://{address}")
            deadline = time.monotonic() + 120
            while True:
                try:
                    httpx.get(started.url + "/-/ready").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.1)
            started.wait_for("inspect_build_info")
            send_load(server.url, factory)
            started.wait_for('inspect_requests_total{endpoint="inspect-batch", status="200"} > 0')
            for rule in RULES:
                if "record" in rule:
                    started.wait_for(rule["record"])
            yield started
        finally:
            process.terminate()
            process.wait(30)


def send_load(url: str, factory: Factory) -> None:
    """A few dozen images at once, good and bad, and every so often one that is refused."""
    images = [path.read_bytes() for kind in ("good", "bad") for path in sorted((factory.data / kind).iterdir())]
    work = [(category, image) for category in ("striped", "fresh") for image in images]
    work += [("striped", b"nonsense"), ("striped", b""), ("brushed", images[0]), ("nowhere", images[0])]
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(
                lambda item: client.post(f"/v1/categories/{item[0]}/inspect", content=item[1], headers=PNG).status_code,
                work,
            )
        )
        parts = [("image", ("a.png", image)) for image in images[:4]]
        statuses.append(client.post("/v1/categories/striped/inspect-batch", files=parts).status_code)
    assert sorted(set(statuses)) == [200, 400, 404, 422, 503]


@pytest.mark.parametrize("title", PANELS)
def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus, title: str):
    for target in PANELS[title]["targets"]:
        expression = target["expr"].replace("$__rate_interval", "1m")
        expression = expression.replace("$instance", ".*").replace("$category", ".*")
        assert "$" not in expression
        assert bool(prometheus.values(expression)) == (title not in WITHOUT_DATA), expression


def test_the_variables_of_the_dashboard_have_values(prometheus: Prometheus):
    for variable in DASHBOARD["templating"]["list"]:
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        selector = selector.replace("$instance", ".*").replace("$node", ".*")
        found = prometheus.get("query", query=selector)["result"]
        assert found
        assert all((label in one["metric"]) == (label != "node") for one in found), label  # nodes are there on Ray only
    assert {one["metric"]["category"] for one in found} == {"striped", "brushed", "fresh"}


def test_every_rule_is_evaluated_without_error(prometheus: Prometheus):
    found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in found) == sorted(rule.get("record") or rule["alert"] for rule in RULES)
    assert [rule for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []
    states = {rule["name"]: rule["state"] for rule in found if rule["type"] == "alerting"}
    assert states["InspectCategoryRefused"] == "pending"  # fires when it has lasted a minute
    assert states["InspectDown"] == states["InspectDeviceLost"] == "inactive"
    assert prometheus.values("category:inspect_anomalous:ratio_rate5m")[-1] > 0
    assert prometheus.values("instance:inspect_rejections:ratio_rate5m")[-1] > 0
