"""Several nodes on one machine: load goes on while replicas, nodes and versions come and go."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.lifecycle.datasets import normal_samples
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.store.version import read_card
from tests.conftest import Factory
from tests.end_to_end.conftest import free_port
from tests.end_to_end.test_ray import by_replica
from tests.postgres import Cluster as Postgres

pytestmark = pytest.mark.xdist_group("ray")  # never two clusters on one machine at once

URL = "/v1/categories/brushed/inspect"
PNG = {"Content-Type": "image/png"}
SETTINGS = {"allow_anonymous": True, "device": "cpu", "reload_seconds": 0, "ray_replica_cpus": 1}


@dataclass
class Service:
    """The service on a cluster whose head runs no replica, and on whose other nodes there is room for one each.

    Attributes:
        database: the history of all replicas, in PostgreSQL.
    """

    port: int
    weights: Path
    database: str
    cluster: Any
    nodes: list[Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts Ray Serve, without the application."""
        from ray import serve

        serve.start(proxy_location="HeadOnly", http_options={"port": self.port, "request_timeout_s": 60})

    def deploy(self, settings: dict[str, object], **replicas: object) -> None:
        """Deploys the application, as a new version of it if its settings have changed.

        Args:
            settings: on top of those that all have.
            replicas: how their number follows the load, as Ray Serve has it.
        """
        from ray import serve

        from service.on_ray.app import NAME, build

        given = {**SETTINGS, "weights": str(self.weights), "database": self.database, **settings}
        deployment = build(given)._bound_deployment
        application = deployment.options(autoscaling_config=replicas).bind(*deployment.init_args)
        serve.run(application, name=NAME, route_prefix="/")

    def replicas(self) -> dict[str, str]:
        """Which node each replica is on."""
        text = httpx.get(self.url + "/metrics", timeout=60).text
        lines = [line for line in text.splitlines() if line.startswith("inspect_device_up{")]
        return {line.split('replica="')[1].split('"')[0]: line.split('node="')[1].split('"')[0] for line in lines}


@pytest.fixture(scope="module")
def service(ray_installed: None, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "service.on_ray.proxy.middlewares")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        weights = Path(shutil.copytree(factory.weights, tmp_path_factory.mktemp("shared") / "weights"))
        cluster = Cluster()
        cluster.add_node(num_cpus=0, object_store_memory=100 << 20, include_dashboard=False)
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
        ray.init(cluster.address, log_to_driver=False)
        postgres = Postgres()
        made = Service(free_port(), weights, postgres.new_database(), cluster, nodes)
        try:
            made.start()
            made.deploy({}, min_replicas=2, max_replicas=2)
            yield made
        finally:
            serve.shutdown()
            ray.shutdown()
            cluster.shutdown()
            postgres.remove()


@dataclass
class Load:
    """What clients were answered that asked without pause."""

    answers: list[httpx.Response] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    def versions(self) -> set[str]:
        return {answer.json()["model_version"] for answer in self.answers if answer.status_code == 200}


@contextmanager
def load(url: str, image: bytes, clients: int = 4) -> Iterator[Load]:
    found = Load()
    end = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not end.is_set():
                try:
                    found.answers.append(client.post(URL, content=image, headers=PNG))
                except Exception as error:
                    found.failures.append(error)
                time.sleep(0.02)  # the cores are for the replicas that start

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        end.set()
        for thread in threads:
            thread.join(60)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def every_request_was_answered(found: Load) -> None:
    """With a verdict, or with a problem that says when to try again."""
    assert not found.failures
    assert set(found.statuses()) <= {200, 503}, [one.text for one in found.answers if one.status_code not in (200, 503)]
    for answer in found.answers:
        if answer.status_code == 503:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
    assert found.statuses()[200] > 0


@pytest.fixture
def image(factory: Factory) -> bytes:
    return (factory.data / "bad" / "000.png").read_bytes()


def remembered(service: Service) -> list[str]:
    """The ids of all inspections of the history."""
    found: list[str] = []
    query: dict[str, object] = {"limit": 500}
    while True:
        page = httpx.get(service.url + "/v1/inspections", params=query, timeout=60).json()
        found += [one["id"] for one in page["inspections"]]
        if page["next"] is None:
            return found
        query["cursor"] = page["next"]


def every_answer_is_remembered(service: Service, found: Load) -> None:
    answered = {answer.json()["id"] for answer in found.answers if answer.status_code == 200}
    wait_until(lambda: answered <= set(remembered(service)))
    everything = remembered(service)
    assert len(everything) == len(set(everything))


def test_requests_spread_over_nodes_and_go_to_one_history(service: Service, image: bytes):
    replicas = service.replicas()
    assert len(set(replicas.values())) == len(replicas) == 2
    with load(service.url, image) as found:
        wait_until(lambda: len(found.answers) > 40)
    assert set(found.statuses()) == {200}
    with httpx.Client(base_url=service.url) as client:
        assert min(by_replica(client, "inspect_image_duration_seconds_count").values()) > 0
    every_answer_is_remembered(service, found)


def test_a_new_version_of_a_category_and_the_way_back_reach_every_replica_at_once(
    service: Service, factory: Factory, teacher: Teacher, image: bytes
):
    old = read_card(service.weights / "brushed").model_version
    new, _ = train_category(
        "brushed", normal_samples(factory.data / "train"), service.weights, "narrow", teacher,
        Recipe(image_size=64, epochs=1, seed=5), replace=True,
    )  # fmt: skip
    assert new.model_version != old
    for change, before, after in (("reload", old, new.model_version), ("rollback", new.model_version, old)):
        with load(service.url, image) as found:
            wait_until(lambda found=found: len(found.answers) > 10)
            answer = httpx.post(f"{service.url}/v1/categories/brushed/{change}", timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model_version"] == after
        assert set(found.statuses()) == {200}
        assert before in found.versions() <= {before, after}
        with load(service.url, image) as found:
            wait_until(lambda found=found: len(found.answers) > 20)
        assert found.versions() == {after}


def test_a_replica_is_killed_and_a_node_is_removed_under_load_and_every_request_is_answered(
    service: Service, image: bytes
):
    import ray

    before = service.replicas()
    with load(service.url, image) as found:
        wait_until(lambda: len(found.answers) > 20)
        names = [one["name"] for one in ray.util.list_named_actors(True) if "SERVE_REPLICA" in one["name"]]
        ray.kill(ray.get_actor(names[0], namespace="serve"))
        wait_until(lambda: len(set(service.replicas()) - set(before)) == 1)
        service.cluster.remove_node(service.nodes.pop(), allow_graceful=False)
        wait_until(lambda: len(service.replicas()) == 1)
        service.nodes.append(service.cluster.add_node(num_cpus=1, object_store_memory=100 << 20))
        wait_until(lambda: len(service.replicas()) == 2)
    every_request_was_answered(found)


def test_a_rolling_update_of_the_application_leaves_no_request_without_a_verdict(service: Service, image: bytes):
    before = service.replicas()
    with load(service.url, image) as found:
        service.deploy({"deadline_seconds": 29}, min_replicas=2, max_replicas=2)
        wait_until(lambda: len(service.replicas()) == 2 and not set(service.replicas()) & set(before))
    every_request_was_answered(found)
    assert set(found.statuses()) == {200}
    every_answer_is_remembered(service, found)


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s`")
def test_replicas_come_and_go_with_the_load_and_no_request_is_lost(service: Service, image: bytes):
    service.deploy(
        {"deadline_seconds": 29}, min_replicas=1, max_replicas=2, target_ongoing_requests=2,
        upscale_delay_s=0, downscale_delay_s=0, look_back_period_s=2, metrics_interval_s=1,
    )  # fmt: skip
    wait_until(lambda: len(service.replicas()) == 1)
    with load(service.url, image, clients=6) as found:
        wait_until(lambda: len(service.replicas()) == 2)
    with load(service.url, image, clients=1) as calm:
        wait_until(lambda: len(service.replicas()) == 1)
    every_request_was_answered(found)
    assert set(calm.statuses()) == {200}
    assert not calm.failures


def test_requests_for_a_category_go_where_it_is_warm(service: Service, image: bytes):
    """With new proxies: one that runs keeps its way to choose among the replicas."""
    from ray import serve

    serve.shutdown()
    service.start()
    service.deploy({"ray_by_category": True}, min_replicas=2, max_replicas=2)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for category in ("striped", "brushed", "fresh"):
            before = by_replica(client, "inspect_images_total", category=category)
            for _ in range(12):
                answer = client.post(f"/v1/categories/{category}/inspect", content=image, headers=PNG)
                assert answer.status_code == 200
            after = by_replica(client, "inspect_images_total", category=category)
            assert sorted(after[replica] - before[replica] for replica in after) == [0, 12]
