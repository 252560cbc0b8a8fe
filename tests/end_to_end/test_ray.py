"""The same contract behind Ray Serve: the tests of the plain server, asked of two replicas, and what only they have."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Factory, surface
from tests.end_to_end.conftest import Server

# ruff: noqa: F401, F811  # pytest finds them here
from tests.end_to_end.test_console import (
    test_nothing_comes_from_another_host_and_nothing_needs_a_weaker_policy,
    test_the_page_and_everything_it_loads_is_there,
)
from tests.end_to_end.test_documents import (
    test_categories_are_listed,
    test_one_category_shows_its_whole_card,
    test_probes,
    test_the_contract_is_documented_and_its_examples_fit_their_schemas,
    test_the_documentation_needs_no_other_host,
)
from tests.end_to_end.test_inspection import (
    test_a_batch_answers_in_order_and_a_bad_image_spoils_nothing,
    test_a_form_and_a_body_are_the_same,
    test_a_full_batch_is_answered,
    test_a_large_photograph_is_answered,
    test_bytes_of_unknown_kind_are_looked_at,
    test_every_format_scores_like_offline,
    test_localize_decides_whether_there_is_a_map,
    test_maps_have_the_size_of_the_image_that_was_sent,
    test_the_accept_header_chooses,
    test_the_answer_has_everything_the_contract_names,
    test_the_picture_is_the_one_the_command_line_draws,
    test_thirty_two_requests_at_once_in_mixed_categories_score_like_offline,
    test_turned_images_are_answered_upright,
)
from tests.end_to_end.test_observation import test_a_request_id_that_will_not_do_is_replaced
from tests.end_to_end.test_refusals import (
    BATCH,
    PNG,
    URL,
    png,
    problem,
    raw_request,
    test_400_form_without_the_field,
    test_400_malformed_form,
    test_400_nothing_sent,
    test_404_and_405_elsewhere_are_problems_too,
    test_404_unknown_category_lists_the_known,
    test_413_a_bomb_is_not_decoded,
    test_415_a_batch_is_a_form,
    test_415_other_media_types,
    test_422_not_decodable,
    test_422_wrong_parameter,
)

pytestmark = pytest.mark.xdist_group("ray")  # never two clusters on one machine at once


@pytest.fixture
def client(ray_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ray_server.url, timeout=60) as made:
        yield made


def by_replica(client: httpx.Client, name: str, **labels: str) -> dict[str, float]:
    """A metric of every replica, summed over the labels that are not given."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for one in family.samples:
            if one.name == name and labels.items() <= one.labels.items():
                replica = one.labels["replica"]
                assert one.labels["node"]
                found[replica] = found.get(replica, 0) + one.value
    return found


def large_png() -> bytes:
    ok, data = cv2.imencode(".png", surface(5, size=(1500, 1500)))
    assert ok
    return bytes(data)


def test_the_metrics_of_all_replicas_are_in_one_place_and_requests_spread(client: httpx.Client, png: bytes):
    before = by_replica(client, "inspect_image_duration_seconds_count")
    assert len(before) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(URL, content=png, headers=PNG), range(40)))
    assert [answer.status_code for answer in answers] == [200] * 40
    after = by_replica(client, "inspect_image_duration_seconds_count")
    grown = {replica: after[replica] - before[replica] for replica in before}
    assert sum(grown.values()) == 40
    assert min(grown.values()) > 0
    assert set(by_replica(client, "inspect_rejections_total", reason="queue-full")) == set(before)


def test_an_answer_carries_its_headers_once(client: httpx.Client):
    answer = client.get("/v1/categories", headers={"X-Request-ID": "seventeen"})
    assert answer.headers.get_list("x-request-id") == ["seventeen"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_a_reload_reaches_every_replica(client: httpx.Client):
    before = by_replica(client, "inspect_students_loaded_total")
    answer = client.post("/v1/categories/fresh/reload")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    after = by_replica(client, "inspect_students_loaded_total")
    assert {replica: after[replica] - before[replica] for replica in before} == dict.fromkeys(before, 1.0)
    problem(client.post("/v1/categories/nothing/reload"), 404, "unknown-category")


def test_full_replicas_say_429_and_when_to_try_again(client: httpx.Client):
    """A call of 32 images takes all the places of a replica."""
    parts = [("image", ("a.png", large_png()))] * 32
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(BATCH + "?localize=never", files=parts), range(8)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            problem(answer, 429, "queue-full")


def test_who_goes_frees_the_places_of_his_images(ray_server: Server, client: httpx.Client):
    data = large_png()
    for _ in range(3):
        before = sum(by_replica(client, "inspect_images_total", outcome="client-gone").values())
        connections = [raw_request(ray_server.url, data, len(data)) for _ in range(20)]
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 120
        while sum(by_replica(client, "inspect_images_total", outcome="client-gone").values()) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while sum(by_replica(client, "inspect_in_flight_images").values()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    failed = by_replica(client, "inspect_requests_total", status="500")
    assert sum(failed.values()) == 0, "".join(line for line in ray_server.log if '"status": 500' in line)


def test_it_ends_in_order(ray_server: Server):
    """The last test of this file: it stops what the others use."""
    ray_server.process.terminate()
    assert ray_server.process.wait(60) == 0
