"""Probes, metrics, the category list, and documentation whose examples are real."""

import re

import httpx
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from model.store.card import Calibration
from model.store.version import read_card
from tests.conftest import Factory


def test_probes(client: httpx.Client):
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_categories_are_listed(client: httpx.Client, factory: Factory):
    listed = {one["category"]: one for one in client.get("/v1/categories").json()["categories"]}
    assert set(listed) == {"striped", "brushed", "fresh"}
    card = read_card(factory.weights / "striped")
    assert listed["striped"] == {
        "category": "striped",
        "status": "ready",
        "reason": None,
        "model_version": card.model_version,
        "teacher": "narrow",
        "image_size": 64,
        "threshold": card.calibration.threshold,
        "calibration": "youden",
        "separates": True,
        "warning": None,
        "candidate": False,
    }
    assert (listed["fresh"]["calibration"], listed["fresh"]["separates"]) == ("synthetic", None)


def test_one_category_shows_its_whole_card(client: httpx.Client, factory: Factory):
    shown = client.get("/v1/categories/striped").json()
    assert shown["card"] == read_card(factory.weights / "striped").model_dump(mode="json")
    told = shown["error_rates"]
    assert told["false_alarms"] == shown["card"]["calibration"]["false_alarms"]
    assert (told["misses"]["parts"], told["misses"]["basis"]) == (12, "same-parts")
    assert told["text"].startswith("Of new good parts, about ")
    fresh = client.get("/v1/categories/fresh").json()["error_rates"]
    assert (fresh["misses"], fresh["false_alarms"]["parts"]) == (None, 2)
    assert "faulty" not in fresh["text"]


def test_the_rates_of_a_category_from_before_they_were_kept_are_worked_out(factory: Factory):
    now = read_card(factory.weights / "striped").calibration
    fields = now.model_dump() | {"false_alarms": None, "misses": None}
    old = Calibration.model_validate(fields)
    alarms, misses = old.error_rates
    assert alarms is not None
    assert now.false_alarms is not None
    assert alarms == now.false_alarms.model_copy(update={"expected": None})
    assert misses is not None
    assert now.misses is not None
    assert misses == now.misses.model_copy(update={"expected": None})
    assert old.promise.startswith("Of new good parts, with 95 % confidence at most ")
    assert now.roc is not None
    lowest = now.roc.threshold[-1]  # somebody has edited the card
    by_hand = Calibration.model_validate(fields | {"threshold": lowest})
    assert by_hand.error_rates == (None, None)
    assert "calibrate again" in by_hand.promise


def test_metrics_count_and_time_every_image(client: httpx.Client, factory: Factory):
    def samples() -> dict[str, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {f"{one.name}{one.labels}": one.value for family in families for one in family.samples}

    url = "/v1/categories/striped/inspect"
    png = {"Content-Type": "image/png"}
    before = samples()
    client.post(url, content=(factory.data / "bad" / "000.png").read_bytes(), headers=png)
    client.post(url, content=(factory.data / "good" / "000.png").read_bytes(), headers=png)
    client.post(url, content=b"nonsense", headers=png)
    client.post("/v1/categories/made-up-by-a-client/inspect", content=b"x", headers=png)
    after = samples()
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for outcome in ("normal", "anomalous", "not-decodable"):
        assert grown[f"inspect_images_total{{'category': 'striped', 'outcome': '{outcome}'}}"] == 1
    assert grown["inspect_images_total{'category': '-', 'outcome': 'unknown-category'}"] == 1
    assert not any("made-up" in name for name in after)
    assert after["inspect_images_total{'category': 'fresh', 'outcome': 'internal-error'}"] == 0
    assert grown["inspect_request_duration_seconds_count{'endpoint': 'inspect'}"] == 4
    for stage, count in (("decode", 2), ("queue", 2), ("inference", 2), ("localization", 1)):
        assert grown[f"inspect_stage_duration_seconds_count{{'stage': '{stage}'}}"] == count
    assert grown["inspect_batch_size_images_sum{}"] == 2
    assert after["inspect_queue_depth_images{}"] == after["inspect_in_flight_images{}"] == 0
    assert after["inspect_categories{'status': 'ready'}"] == 3
    edges = [float(found) for found in re.findall(r"request_duration_seconds_bucket.*?'le': '([0-9.]+)'", str(after))]
    assert min(edges) == 0.001
    assert max(edges) == 30


def test_the_documentation_needs_no_other_host(client: httpx.Client):
    page = client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert client.get(source).status_code == 200


def test_the_contract_is_documented_and_its_examples_fit_their_schemas(client: httpx.Client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/categories/{category}/inspect",
        "/v1/categories/{category}/inspect-batch",
        "/v1/categories",
        "/v1/categories/{category}",
        "/v1/categories/{category}/reload",
        "/v1/categories/{category}/rollback",
        "/v1/categories/{category}/candidate",
        "/v1/categories/{category}/candidate/promote",
        "/v1/categories/{category}/calibrations",
        "/v1/categories/{category}/trainings",
        "/v1/categories/{category}/training-images",
        "/v1/categories/{category}/training-images/{sha256}",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/parts",
        "/v1/parts/inspect",
        "/v1/inspections",
        "/v1/inspections/export",
        "/v1/inspections/review",
        "/v1/inspections/{id}",
        "/v1/inspections/{id}/nearest-good",
        "/v1/inspections/{id}/image",
        "/v1/inspections/{id}/overlay",
        "/v1/inspections/{id}/heatmap",
        "/v1/inspections/{id}/label",
        "/v1/audit",
        "/v1/categories/{category}/drift",
        "/v1/categories/{category}/agreement",
        "/v1/categories/{category}/model-card",
        "/livez",
        "/readyz",
        "/metrics",
    }
    inspect = document["paths"]["/v1/categories/{category}/inspect"]["post"]["responses"]
    assert set(inspect) == {"200", "400", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert set(document["paths"]["/v1/categories/{category}"]["get"]["responses"]) == {"200", "404", "422"}
    images = document["paths"]["/v1/categories/{category}/training-images"]
    assert set(images) == {"get", "post", "delete"}
    named = document["paths"]["/v1/categories/{category}/training-images/{sha256}"]["put"]
    assert images["post"]["responses"] == named["responses"]
    assert {"200", "201", "507"} < set(named["responses"])
    assert images["post"]["requestBody"] == named["requestBody"]
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
    checked = 0
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                for media_type, media in response.get("content", {}).items():
                    if status >= "400":
                        assert media_type == "application/problem+json"
                        assert media["example"]["status"] == int(status)
                    if "example" in media:
                        schema = {**media["schema"], "components": document["components"]}
                        Draft202012Validator(schema).validate(media["example"])
                        checked += 1
    assert checked >= 20
    assert document["paths"]["/livez"]["get"]["responses"]["503"]["content"]["application/problem+json"]["example"][
        "type"
    ].endswith(":not-alive")
