"""A part of several views, on the real server: one answer, and never a pass for a part that was not judged whole."""

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import Result

from model.store.parts import PartCards
from service.choices import Role
from service.http.keys import create_key
from tests.conftest import Factory
from tests.end_to_end.conftest import GatedServer, Server, running_server, wait_for_metric
from tests.end_to_end.test_inspection import same_verdict
from tests.end_to_end.test_observation import lines_of, samples
from tests.end_to_end.test_part_info import ECHOED, GIVEN, NOTHING, about
from tests.end_to_end.test_refusals import problem
from tests.service.cli.test_cli import run

URL = "/v1/parts/inspect"
CARDS = {
    "housing": {"views": [{"category": "striped"}, {"category": "brushed", "images": 2}]},
    "lid": {"views": [{"category": "fresh"}]},
    "ghost": {"views": [{"category": "striped"}, {"category": "no-such-category"}]},
    "broken": {"views": [{"category": "striped", "image": 1}]},
    "big": {"views": [{"category": "striped", "images": 9}]},
}
BROKEN = ("a.png", b"nonsense")
View = tuple[str, tuple[str | None, bytes]]


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a category ``lot``, named like something that can be said of a part, and one that is refused."""
    folder = tmp_path_factory.mktemp("house") / "weights"
    shutil.copytree(factory.weights, folder)
    for name in ("lot", "damaged"):
        shutil.copytree(folder / "fresh", folder / name)
        card = json.loads((folder / name / "card.json").read_text())
        version = {"schema_version": 99} if name == "damaged" else {}
        (folder / name / "card.json").write_text(json.dumps(card | {"category": name} | version))
    cards = folder.parent / "parts"
    cards.mkdir()
    for name, card in CARDS.items():
        (cards / f"{name}.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def house(weights: Path) -> Iterator[Server]:
    """Its cards are found in the folder beside the weights."""
    with running_server(weights, max_batch_images="8", log_format="json") as server:
        yield server


@pytest.fixture
def line(house: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=60) as made:
        yield made


@pytest.fixture
def good(factory: Factory) -> tuple[str, bytes]:
    """Normal for ``striped``."""
    return "good.png", (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture
def bad(factory: Factory) -> tuple[str, bytes]:
    """Anomalous for ``striped``."""
    return "bad.png", (factory.data / "bad" / "000.png").read_bytes()


@pytest.fixture
def calm(factory: Factory) -> tuple[str, bytes]:
    """Of the training of every category."""
    return "calm.png", (factory.data / "train" / "003.png").read_bytes()


def told(answer: dict) -> list[tuple[str, str]]:
    """The category of each view with its decision, or the kind of the problem in its place."""
    for view in answer["views"]:
        assert (view["inspection"] is None) != (view["problem"] is None)
    return [
        (view["category"], view["inspection"]["decision"])
        if view["inspection"]
        else (view["category"], view["problem"]["type"].rpartition(":")[2])
        for view in answer["views"]
    ]


def test_one_answer_for_all_views_in_the_order_they_were_sent(line: httpx.Client, good: tuple, bad: tuple):
    answer = line.post(URL, files=[("striped", good), ("fresh", good), ("striped", bad)]).json()
    assert set(answer) == {"id", *GIVEN, "part", "part_version", "decision", "views"}
    assert [view["category"] for view in answer["views"]] == ["striped", "fresh", "striped"]
    assert told(answer)[0] == ("striped", "normal")
    assert told(answer)[2] == ("striped", "anomalous")
    assert answer["decision"] == "anomalous"
    assert (answer["part"], answer["part_version"]) == (None, None)
    assert about(answer) == NOTHING
    found = [view["inspection"] for view in answer["views"]]
    assert [one["category"] for one in found] == ["striped", "fresh", "striped"]
    assert found[2]["localization"]["regions"]
    ids = {UUID(answer["id"]), *(UUID(one["id"]) for one in found)}
    assert len(ids) == 4
    assert {one.version for one in ids} == {7}


def test_a_part_is_normal_when_every_view_is(line: httpx.Client, good: tuple):
    answer = line.post(URL, files=[("striped", good), ("striped", good)]).json()
    assert told(answer) == [("striped", "normal")] * 2
    assert answer["decision"] == "normal"


@pytest.mark.parametrize("at_once", [1, 4])
def test_views_score_like_offline_alone_and_in_mixed_batches(
    line: httpx.Client, files: list[Path], offline: dict, factory: Factory, at_once: int
):
    parts = [
        [
            (factory.categories[(index + place) % 3], files[(3 * index + place) % len(files)])
            for place in range(3 + index % 3)
        ]
        for index in range(8)
    ]
    if at_once == 1:
        parts = parts[:3]
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(
            pool.map(
                lambda part: line.post(
                    URL, files=[(category, (path.name, path.read_bytes())) for category, path in part]
                ),
                parts,
            )
        )
    for part, answer in zip(parts, answers, strict=True):
        assert answer.status_code == 200, answer.text
        for (category, path), view in zip(part, answer.json()["views"], strict=True):
            same_verdict(view["inspection"], offline[category][path.name])


@pytest.mark.parametrize("gated", [{"device_batch": 32}], indirect=True)
def test_the_views_of_a_part_share_a_batch(gated: GatedServer, good: tuple):
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, gated.url + URL, files=[("fresh", good)], timeout=60)
        assert gated.gate.reached.acquire(timeout=30)
        part = pool.submit(
            httpx.post, gated.url + URL, files=[("striped", good), ("brushed", good), ("striped", good)], timeout=60
        )
        wait_for_metric(gated.url, "inspect_queue_depth_images 3.0")
        gated.gate.open.set()
        assert first.result().status_code == part.result().status_code == 200
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_batch_size_images_count 2.0" in metrics
    assert "inspect_batch_size_images_sum 4.0" in metrics


@pytest.mark.parametrize(
    ("second", "kind"),
    [(BROKEN, "not-decodable"), (("a.png", b""), "empty-body"), (("a.png", b"\x89PNG\r\n\x1a\n"), "not-decodable")],
)
def test_a_view_that_cannot_be_judged_has_its_problem_and_the_part_does_not_pass(
    line: httpx.Client, good: tuple, bad: tuple, second: tuple, kind: str
):
    answer = line.post(URL, files=[("striped", good), ("fresh", second)]).json()
    assert told(answer) == [("striped", "normal"), ("fresh", kind)]
    assert answer["decision"] == "incomplete"
    assert answer["views"][1]["problem"]["detail"]
    for views in ([("striped", bad), ("fresh", second)], [("fresh", second), ("striped", bad)]):
        answer = line.post(URL, files=views).json()
        assert answer["decision"] == "anomalous"
        assert dict(told(answer)) == {"striped": "anomalous", "fresh": kind}


def test_a_view_whose_category_is_refused_has_its_problem(line: httpx.Client, good: tuple):
    answer = line.post(URL, files=[("damaged", good), ("striped", good)]).json()
    assert told(answer) == [("damaged", "category-refused"), ("striped", "normal")]
    assert answer["decision"] == "incomplete"
    assert answer["views"][0]["problem"]["status"] == 503
    assert line.post(URL, files=[("damaged", good)]).json()["decision"] == "incomplete"


def test_a_card_puts_the_views_in_its_order(line: httpx.Client, good: tuple, calm: tuple, weights: Path):
    views = [("brushed", calm), ("striped", good), ("brushed", calm)]
    answer = line.post(URL, params={"part": "housing"}, files=views).json()
    assert [view["category"] for view in answer["views"]] == ["striped", "brushed", "brushed"]
    assert answer["part"] == "housing"
    assert answer["part_version"] == PartCards(weights.parent / "parts").read("housing").version
    decisions = {decision for _, decision in told(answer)}
    assert decisions <= {"normal", "anomalous"}
    assert answer["decision"] == ("anomalous" if "anomalous" in decisions else "normal")


def test_a_missing_view_has_a_problem_in_its_place_and_the_part_does_not_pass(
    line: httpx.Client, good: tuple, bad: tuple
):
    answer = line.post(URL, params={"part": "housing"}, files=[("striped", good)]).json()
    assert told(answer) == [("striped", "normal"), ("brushed", "missing-view"), ("brushed", "missing-view")]
    assert answer["decision"] == "incomplete"
    assert (
        answer["views"][1]["problem"]["detail"] == "the part 'housing' must have 2 images of 'brushed', and none came"
    )
    answer = line.post(URL, params={"part": "housing"}, files=[("striped", bad)]).json()
    assert answer["decision"] == "anomalous"
    answer = line.post(URL, params={"part": "ghost"}, files=[("striped", good)]).json()
    assert told(answer) == [("striped", "normal"), ("no-such-category", "missing-view")]
    assert answer["decision"] == "incomplete"
    answer = line.post(URL, params={"part": "ghost"}, files=[("no-such-category", good), ("striped", good)]).json()
    assert told(answer) == [("striped", "normal"), ("no-such-category", "unknown-category")]
    assert answer["decision"] == "incomplete"


def test_the_parts_are_listed_with_what_is_wrong_with_them(line: httpx.Client, weights: Path):
    listed = {one["part"]: one for one in line.get("/v1/parts").json()["parts"]}
    assert {name: one["status"] for name, one in listed.items()} == {
        "big": "refused", "broken": "refused", "ghost": "incomplete", "housing": "ready", "lid": "ready",
    }  # fmt: skip
    assert listed["housing"] == {
        "part": "housing",
        "part_version": PartCards(weights.parent / "parts").read("housing").version,
        "status": "ready",
        "reason": None,
        "views": [{"category": "striped", "images": 1}, {"category": "brushed", "images": 2}],
    }
    assert "views.0.image: Extra inputs" in listed["broken"]["reason"]
    assert "asks for 9 images; at most 8" in listed["big"]["reason"]
    assert "there is no category 'no-such-category'" in listed["ghost"]["reason"]


def test_a_card_that_changes_counts_at_once(line: httpx.Client, good: tuple, weights: Path):
    card = weights.parent / "parts" / "new.json"
    assert "known: big, broken, ghost, housing, lid" in problem(
        line.post(URL, params={"part": "new"}, files=[("striped", good)]), 404, "unknown-part"
    )
    try:
        card.write_text(json.dumps({"views": [{"category": "striped"}]}))
        first = line.post(URL, params={"part": "new"}, files=[("striped", good)]).json()
        assert first["decision"] == "normal"
        card.write_text(json.dumps({"views": [{"category": "striped", "images": 2}]}))
        second = line.post(URL, params={"part": "new"}, files=[("striped", good)]).json()
        assert second["decision"] == "incomplete"
        assert first["part_version"] != second["part_version"]
    finally:
        card.unlink()


def test_without_a_folder_of_cards_there_are_none(client: httpx.Client, good: tuple):
    assert client.get("/v1/parts").json() == {"parts": []}
    answer = client.post(URL, params={"part": "housing"}, files=[("striped", good)])
    assert "known: none" in problem(answer, 404, "unknown-part")
    assert answer.json()["parts"] == []


def test_what_is_said_of_the_part_stands_in_the_answer_and_in_every_view(line: httpx.Client, good: tuple):
    for answer in (
        line.post(URL, params=GIVEN, files=[("striped", good), ("fresh", BROKEN)]).json(),
        line.post(URL, data=GIVEN, files=[("striped", good), ("fresh", BROKEN)]).json(),
    ):
        assert about(answer) == ECHOED
        assert about(answer["views"][0]["inspection"]) == ECHOED


def test_a_file_is_an_image_and_a_text_is_said_whatever_the_name(line: httpx.Client, good: tuple):
    """A category may have the name of something that is said of a part."""
    answer = line.post(URL, files=[("lot", (None, b"L7")), ("lot", good), ("striped", good)]).json()
    assert answer["lot"] == "L7"
    assert [view["category"] for view in answer["views"]] == ["lot", "striped"]
    answer = line.post(URL, files=[("lot", good)]).json()
    assert answer["lot"] is None
    assert answer["views"][0]["inspection"]["category"] == "lot"
    answer = line.post(URL, files=[("station", good), ("lot", good)])
    assert "'station'" in problem(answer, 404, "unknown-category")


@pytest.mark.parametrize(
    ("files", "status", "kind", "sentence"),
    [
        ([], 400, "no-image", "no file"),
        ([("lot", (None, b"7"))], 400, "no-image", "no file"),
        ([("striped", (None, b"text"))], 422, "invalid-request", "there is no form field 'striped'"),
        ([("bottle", ("a.png", b"x"))], 404, "unknown-category", "known: brushed, damaged, fresh, lot, striped"),
        ([("striped", ("a.png", b"x")), ("image", ("a.png", b"x"))], 404, "unknown-category", "'image'"),
        ([("../striped", ("a.png", b"x"))], 404, "unknown-category", "'../striped'"),
        ([("", ("a.png", b"x"))], 404, "unknown-category", "''"),
        ([("striped", ("a.png", b"x"))] * 9, 413, "too-many-images", "at most 8"),
        ([("striped", ("a.png", b"x")), ("lot", (None, b"a\nb"))], 422, "invalid-request", "U+000A"),
        ([("striped", ("a.png", b"x")), ("lot", (None, b"a")), ("lot", (None, b"a"))], 422, "invalid-request", "more"),
        ([("striped", ("a.png", b"x")), ("station", (None, b"\xff"))], 400, "malformed-form", "not utf-8"),
        ([("striped", ("a.png", b"x")), ("note", (None, b"x"))], 422, "invalid-request", "no form field 'note'"),
    ],
)
def test_forms_that_are_refused(line: httpx.Client, files: list[View], status: int, kind: str, sentence: str):
    headers = {} if files else {"Content-Type": "multipart/form-data; boundary=b"}
    assert sentence in problem(line.post(URL, files=files, headers=headers), status, kind)


@pytest.mark.parametrize(
    ("query", "status", "kind", "sentence"),
    [
        ("part=none", 404, "unknown-part", "'none'; known: big, broken, ghost, housing, lid"),
        ("part=../weights/striped/card", 404, "unknown-part", "known"),
        ("part=", 404, "unknown-part", "known"),
        ("part=broken", 503, "part-refused", "views.0.image"),
        ("part=big", 503, "part-refused", "asks for 9 images"),
        ("part=lid", 422, "invalid-request", "no view 'striped'; its views: 'fresh'"),
        ("part=housing&part=lid", 422, "invalid-request", "more than once"),
        ("parts=housing", 422, "invalid-request", "did you mean 'part'?"),
        ("localize=maybe", 422, "invalid-request", "auto"),
        ("lot=%0A", 422, "invalid-request", "U+000A"),
    ],
)
def test_queries_that_are_refused(line: httpx.Client, good: tuple, query: str, status: int, kind: str, sentence: str):
    assert sentence in problem(line.post(f"{URL}?{query}", files=[("striped", good)]), status, kind)


def test_more_images_than_the_card_has_are_refused(line: httpx.Client, good: tuple):
    answer = line.post(URL, params={"part": "housing"}, files=[("striped", good)] * 2)
    assert "has one image of 'striped'; 2 came" in problem(answer, 422, "invalid-request")


def test_a_body_that_is_no_form_is_refused(line: httpx.Client, good: tuple):
    answer = line.post(URL, content=good[1], headers={"Content-Type": "image/png"})
    assert "a file for each image" in problem(answer, 415, "unsupported-media-type")


def test_localize_and_map_hold_for_every_view(line: httpx.Client, good: tuple, bad: tuple):
    views = [("striped", good), ("striped", bad)]
    answer = line.post(URL, params={"localize": "always", "map": "distance"}, files=views).json()
    assert [view["inspection"]["localization"]["map"] for view in answer["views"]] == ["distance"] * 2
    answer = line.post(URL, params={"localize": "never"}, files=views).json()
    assert [view["inspection"]["localization"] for view in answer["views"]] == [None] * 2


def test_views_are_counted_by_category_and_parts_by_decision(line: httpx.Client, good: tuple, bad: tuple):
    before = samples(line)
    line.post(URL, params={"part": "housing"}, files=[("striped", good)])
    line.post(URL, files=[("striped", bad), ("fresh", BROKEN), ("damaged", good)])
    line.post(URL, files=[("made-up-by-a-client", good)])
    line.post(URL, params={"part": "ghost"}, files=[("no-such-category", good)])
    after = samples(line)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for category, outcome, count in (
        ("striped", "normal", 1), ("brushed", "missing-view", 2), ("striped", "anomalous", 1),
        ("fresh", "not-decodable", 1), ("damaged", "category-refused", 1), ("-", "unknown-category", 2),
        ("striped", "missing-view", 1),
    ):  # fmt: skip
        assert grown.pop(f"inspect_images_total{{'category': '{category}', 'outcome': '{outcome}'}}") == count
    assert not any(name.startswith("inspect_images_total") for name in grown)
    for part, decision in (("housing", "incomplete"), ("-", "anomalous"), ("ghost", "incomplete")):
        assert grown.pop(f"inspect_parts_total{{'decision': '{decision}', 'part': '{part}'}}") == 1
    assert not any(name.startswith("inspect_parts_total") for name in grown)
    assert grown["inspect_requests_total{'endpoint': 'inspect-part', 'status': '200'}"] == 3
    assert not any("made-up" in name for name in after)


def test_the_log_line_tells_of_the_part(house: Server, line: httpx.Client, good: tuple):
    views = [("striped", good), ("brushed", BROKEN)]
    headers = {"X-Request-ID": "part-1"}
    answer = line.post(URL, params=GIVEN | {"part": "housing"}, files=views, headers=headers).json()
    (entry,) = lines_of(house, "part-1")
    assert about(entry) == ECHOED
    assert entry["outcomes"] == {"normal": 1, "not-decodable": 1, "missing-view": 1}
    for name in ("id", "part", "part_version", "decision"):
        assert entry[name] == answer[name]
    assert entry["path"] == URL
    assert entry["category"] is None
    line.post(URL, params={"part": "x\nlevel: error"}, files=views, headers={"X-Request-ID": "part-2"})
    (entry,) = lines_of(house, "part-2")
    assert entry["outcome"] == "unknown-part"


@pytest.mark.parametrize("gated", [{"queue_size": 4, "max_batch_images": 4, "device_batch": 1}], indirect=True)
def test_429_a_part_is_taken_whole_or_not_at_all(gated: GatedServer, good: tuple):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, gated.url + URL, files=[("striped", good)] * 2, timeout=60)
        assert gated.gate.reached.acquire(timeout=30)
        wait_for_metric(gated.url, "inspect_in_flight_images 2.0")
        answer = httpx.post(gated.url + URL, files=[("striped", good), ("fresh", good), ("striped", good)])
        problem(answer, 429, "queue-full")
        gated.gate.open.set()
        assert first.result().json()["decision"] == "normal"
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_in_flight_images 0.0" in metrics
    for category in ("striped", "fresh"):
        assert f'inspect_images_total{{category="{category}",outcome="queue-full"}} 1.0' in metrics


@pytest.mark.parametrize("gated", [{"deadline_seconds": 0.3}], indirect=True)
def test_a_view_whose_deadline_passes_does_not_pass(gated: GatedServer, good: tuple):
    answer = httpx.post(gated.url + URL, files=[("striped", good), ("fresh", good)], timeout=30).json()
    assert told(answer) == [("striped", "deadline-passed"), ("fresh", "deadline-passed")]
    assert answer["decision"] == "incomplete"


@pytest.mark.parametrize("gated", [{"device_batch": 1}], indirect=True)
def test_a_client_that_goes_frees_the_places_of_all_its_views(gated: GatedServer, good: tuple):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, gated.url + URL, files=[("striped", good)], timeout=60)
        assert gated.gate.reached.acquire(timeout=30)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(gated.url + URL, files=[("striped", good), ("fresh", good)], timeout=1)
        wait_for_metric(gated.url, "inspect_in_flight_images 1.0")
        gated.gate.open.set()
        assert first.result().status_code == 200
    metrics = httpx.get(gated.url + "/metrics").text
    assert "inspect_batch_size_images_sum 1.0" in metrics
    for category in ("striped", "fresh"):
        assert f'inspect_images_total{{category="{category}",outcome="client-gone"}} 1.0' in metrics


def test_503_shutting_down(gated: GatedServer, good: tuple):
    with httpx.Client(base_url=gated.url, timeout=30) as client:
        assert client.get("/readyz").status_code == 200
        gated.gate.open.set()
        gated.app.state.parts.engine.close()
        problem(client.post(URL, files=[("striped", good)]), 503, "shutting-down")


def test_an_error_on_the_device_is_no_pass_and_tells_nothing_of_the_inside(gated: GatedServer, good: tuple):
    gated.gate.failure = RuntimeError("secret path /etc/keys")
    gated.gate.open.set()
    answer = httpx.post(gated.url + URL, files=[("striped", good), ("fresh", good)], timeout=30)
    assert told(answer.json()) == [("striped", "internal-error"), ("fresh", "internal-error")]
    assert answer.json()["decision"] == "incomplete"
    assert "secret" not in answer.text


def test_a_part_needs_a_key_where_the_server_asks_for_keys(factory: Factory, good: tuple, tmp_path: Path):
    key = create_key(tmp_path / "keys", "line-3", Role.INSPECT)
    nowhere = str(tmp_path / "nowhere")
    with running_server(factory.weights, keys_file=str(tmp_path / "keys"), parts=nowhere) as server:
        server.wait_for_log(f"there is no folder of cards of parts {nowhere}")
        for response in (httpx.post(server.url + URL, files=[("striped", good)]), httpx.get(server.url + "/v1/parts")):
            problem(response, 401, "unauthenticated")
        headers = {"X-API-Key": key}
        answer = httpx.post(server.url + URL, files=[("striped", good)], headers=headers, timeout=60)
        assert answer.json()["decision"] == "normal"
        assert httpx.get(server.url + "/v1/parts", headers=headers).json() == {"parts": []}


def command(weights: Path, folder: Path, *options: str, status: int = 0) -> Result:
    """``eca-inspect inspect-part``."""
    return run("inspect-part", folder, "--weights", weights, "--device", "cpu", *options, status=status)


def folder_of(top: Path, views: Sequence[tuple[str, tuple[str, bytes]]]) -> Path:
    """A part as a folder of views: a file for each, in a sub-folder where there are several of a category."""
    categories = [category for category, _ in views]
    for index, (category, (_, data)) in enumerate(views):
        several = categories.count(category) > 1
        path = top / category / f"{index:02}.png" if several else top / f"{category}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


@pytest.mark.parametrize("part", ["housing", None])
def test_the_command_line_gives_the_verdict_of_the_server(
    line: httpx.Client, weights: Path, good: tuple, bad: tuple, calm: tuple, tmp_path: Path, part: str | None
):
    whole = [("brushed", calm), ("brushed", good), ("striped", good)]
    cases: list[tuple[str, list[tuple[str, tuple[str, bytes]]]]] = [
        ("whole", whole),
        ("bad", [*whole[:2], ("striped", bad)]),
        ("missing", whole[1:]),
        ("broken", [*whole[:2], ("striped", BROKEN)]),
    ]
    options = ("--json",) if part is None else ("--json", "--part", part)
    for name, views in cases:
        online = line.post(URL, params={} if part is None else {"part": part}, files=views).json()
        folder = folder_of(tmp_path / name, views)
        done = command(weights, folder, *options, status=online["decision"] == "incomplete")
        offline = json.loads(done.stdout)
        assert told(offline) == told(online)
        for field in ("part", "part_version", "decision"):
            assert offline[field] == online[field]
        for one, other in zip(online["views"], offline["views"], strict=True):
            assert one["problem"] == other["problem"]
            if one["inspection"] is not None:
                same_verdict(one["inspection"], other["inspection"])
                assert Path(other["path"]).is_relative_to(folder)


def test_the_command_line_says_each_view_and_the_verdict(weights: Path, good: tuple, bad: tuple, tmp_path: Path):
    folder = folder_of(tmp_path / "part-0815", [("striped", bad), ("damaged", good)])
    (folder / "notes.txt").write_text("seen by Ada")
    done = command(weights, folder)
    first, last = done.stdout.splitlines()
    assert first.startswith("anomalous")
    assert first.endswith("striped.png")
    assert last == f"anomalous: {folder}"
    assert "schema version 99" in done.stderr
    assert "left out: 1 file of another type: 1 .txt" in done.stderr
    done = command(weights, folder_of(tmp_path / "other", [("striped", good)]), "--part", "housing", status=1)
    assert done.stdout.splitlines()[-1].startswith("incomplete: ")
    assert done.stderr.count("must have 2 images of 'brushed', and none came") == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "there is no category 'bottle'; known: brushed, damaged, fresh, lot, striped"),
        (("--part", "none"), "there is no card of a part 'none'; known: big"),
        (("--part", "broken"), "views.0.image"),
        (("--part", "housing"), "the part has no view 'bottle'"),
        (("--map", "nonsense"), "nonsense"),
    ],
)
def test_the_command_line_refuses_what_the_server_refuses(
    weights: Path, good: tuple, tmp_path: Path, options: tuple[str, ...], sentence: str
):
    folder = folder_of(tmp_path / "part", [("bottle", good), ("striped", good)])
    status = 2 if "--map" in options else 1
    done = command(weights, folder, *options, status=status)
    assert sentence in done.stderr
    assert done.stdout == ""
    (tmp_path / "empty").mkdir()
    assert "holds no image" in command(weights, tmp_path / "empty", status=1).stderr
