"""What a client says of a part comes back in every answer and stands in the log; what cannot be taken is refused."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import Result

from tests.conftest import Factory
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_inspection import form_of
from tests.end_to_end.test_observation import lines_of
from tests.end_to_end.test_refusals import problem
from tests.service.cli.test_cli import run

URL = "/v1/categories/striped/inspect"
BATCH = URL + "-batch"
PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=sep"}
METADATA = {"shift": "b", "belt": 3, "speed": 0.25, "rework": False, "größe": "Ø 12"}
GIVEN = {"part_id": "SN 0815/a", "lot": "Los-7", "station": "Prüfplatz 3", "metadata": json.dumps(METADATA)}
ECHOED = GIVEN | {"metadata": METADATA}
NOTHING = dict.fromkeys(GIVEN)


OPTIONS = [text for name, value in GIVEN.items() for text in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture(scope="module")
def talkative(factory: Factory) -> Iterator[Server]:
    with running_server(factory.weights, log_format="json") as started:
        yield started


def about(answer: dict[str, object]) -> dict[str, object]:
    return {name: answer[name] for name in GIVEN}


def test_the_query_comes_back_with_every_way_to_send_an_image(client: httpx.Client, png: bytes):
    file = {"image": ("a.png", png)}
    for answer in (
        client.post(URL, params=GIVEN, content=png, headers=PNG).json(),
        client.post(URL, params=GIVEN, files=file).json(),
        *client.post(BATCH, params=GIVEN, files=[("image", png)] * 2).json()["results"],
    ):
        assert about(answer) == ECHOED


def test_the_fields_of_a_form_come_back_too(client: httpx.Client, png: bytes):
    file = {"image": ("a.png", png)}
    assert about(client.post(URL, data=GIVEN, files=file).json()) == ECHOED
    for answer in client.post(BATCH, data=GIVEN, files=[("image", png)] * 2).json()["results"]:
        assert about(answer) == ECHOED
    rest = {name: text for name, text in GIVEN.items() if name != "lot"}
    assert about(client.post(URL, params={"lot": "Los-7"}, data=rest, files=file).json()) == ECHOED


def test_what_is_not_said_is_null(client: httpx.Client, png: bytes):
    assert about(client.post(URL, content=png, headers=PNG).json()) == NOTHING
    assert about(client.post(URL, files={"image": ("a.png", png)}).json()) == NOTHING


def test_every_inspection_has_an_id_of_its_own(client: httpx.Client, png: bytes):
    answers = client.post(BATCH, files=[("image", png)] * 3).json()["results"]
    answers.append(client.post(URL, content=png, headers=PNG).json())
    ids = [UUID(answer["id"]) for answer in answers]
    picture = client.post(URL, content=png, headers=PNG | {"Accept": "image/png"})
    ids.append(UUID(picture.headers["x-inspection-id"]))
    assert len(set(ids)) == 5
    assert {one.version for one in ids} == {7}


def test_the_log_line_has_it_and_the_id(talkative: Server, png: bytes):
    with httpx.Client(base_url=talkative.url) as client:
        headers = PNG | {"X-Request-ID": "about-1"}
        answer = client.post(URL, params=GIVEN, content=png, headers=headers).json()
        (line,) = lines_of(talkative, "about-1")
        assert about(line) == ECHOED
        assert line["id"] == answer["id"]
        broken = {"image": ("a.png", b"nonsense")}
        client.post(URL, data=GIVEN, files=broken, headers={"X-Request-ID": "about-2"})
        (line,) = lines_of(talkative, "about-2")
        assert about(line) == ECHOED
        assert line["outcome"] == "not-decodable"
        client.post(URL, params={"lot": "a\n{}"}, content=png, headers=PNG | {"X-Request-ID": "about-3"})
        (line,) = lines_of(talkative, "about-3")
        assert not set(GIVEN) & set(line)
        assert line["outcome"] == "invalid-request"
    assert all(json.loads(line) for line in talkative.log)


@pytest.mark.parametrize("url", [URL, BATCH])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"lot": "a\nb"}, "'lot' has the character U+000A"),
        ({"lot": "a" * 129}, "lot"),
        ({"lot": ""}, "lot"),
        ({"part_id": "\u202egnp.exe"}, "'part_id' has the character U+202E"),
        ({"metadata": "shift=b"}, "'metadata' is not JSON"),
        ({"metadata": '{"a": {"b": 1}}'}, "'metadata: a' must be a text, a number, true or false"),
        ({"metadata": '{"a": "\\u0000"}'}, "U+0000"),
        ({"metadata": json.dumps({str(one): one for one in range(33)})}, "at most 32"),
        ({"metadata": json.dumps({"a": "x" * 5000})}, "4096"),
        ({"lott": "7"}, "did you mean 'lot'?"),
    ],
)
def test_422_what_cannot_be_taken(client: httpx.Client, png: bytes, url: str, given: dict, sentence: str):
    file = {"image": ("a.png", png)}
    for response in (client.post(url, params=given, files=file), client.post(url, data=given, files=file)):
        assert sentence in problem(response, 422, "invalid-request")


def test_422_said_twice(client: httpx.Client, png: bytes):
    file = [("image", ("a.png", png))]
    twice = [("lot", (None, "a")), ("lot", (None, "b"))]
    for url in (URL, BATCH):
        answer = client.post(url, params={"lot": "a"}, data={"lot": "a"}, files=file)
        assert "both in the query and in the form" in problem(answer, 422, "invalid-request")
        assert "more than once" in problem(client.post(url, files=file + twice), 422, "invalid-request")
        answer = client.post(f"{url}?lot=a&lot=b", files=file)
        assert "more than once" in problem(answer, 422, "invalid-request")


def test_422_form_fields_that_are_not_known_or_of_the_wrong_kind(client: httpx.Client, png: bytes):
    image = ("image", ("a.png", png))
    answer = client.post(BATCH, files=[image, ("station", ("3.txt", b"3"))])
    assert "'station' must be text, without a file name" in problem(answer, 422, "invalid-request")
    answer = client.post(BATCH, files=[image, ("stat1on", ("3.txt", b"3"))])
    assert "did you mean 'station'?" in problem(answer, 422, "invalid-request")
    for url in (URL, BATCH):
        answer = client.post(url, files=[image], data={"submit": "Send"})
        assert "there is no form field 'submit'" in problem(answer, 422, "invalid-request")


def test_400_a_text_in_another_encoding(client: httpx.Client, png: bytes):
    def sent(text: bytes, charset: str = "") -> httpx.Response:
        image = b'--sep\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png + b"\r\n"
        body = form_of('Content-Disposition: form-data; name="station"', text, before=image)
        return client.post(URL, content=body, headers={"Content-Type": FORM["Content-Type"] + charset})

    assert "'station' is not utf-8" in problem(sent("Prüfplatz".encode("latin-1")), 400, "malformed-form")
    assert sent("Prüfplatz".encode()).json()["station"] == "Prüfplatz"
    assert sent("Prüfplatz".encode("latin-1"), "; charset=latin-1").json()["station"] == "Prüfplatz"


@pytest.mark.parametrize("query", [b"lot=Los%FC7", b"lot=Los\xfc7", b"lot=%00", b"lot=a%0d%0aSet-Cookie:x"])
def test_a_query_of_other_bytes_is_refused_or_closed(server: Server, png: bytes, query: bytes):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST " + URL.encode() + b"?" + query + b" HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(png) + png
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 422", b"HTTP/1.1 400")), answer[:200]
    assert b"Set-Cookie" not in answer


def command(factory: Factory, *arguments: object, status: int = 0) -> Result:
    return run(*arguments, "--weights", factory.weights, "--device", "cpu", status=status)


def test_the_command_line_repeats_it_as_the_server_does(factory: Factory, png: bytes, tmp_path: Path):
    (tmp_path / "striped.png").write_bytes(png)
    (tmp_path / "other.png").write_bytes(png)
    images = sorted(tmp_path.iterdir())
    answers = json.loads(command(factory, "inspect", "striped", *images, *OPTIONS, "--json").stdout)
    assert [about(one) for one in answers] == [ECHOED] * 2
    assert about(json.loads(command(factory, "inspect", "striped", images[0], "--json").stdout)[0]) == NOTHING
    images[0].unlink()
    whole = json.loads(command(factory, "inspect-part", tmp_path, *OPTIONS, "--json").stdout)
    assert about(whole) == about(whole["views"][0]["inspection"]) == ECHOED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--part-id", ""), "'part_id' is empty"),
        (("--lot", "x" * 129), "'lot' has 129 characters; at most 128 are allowed"),
        (("--station", "a\nb"), "'station' has the character U+000A"),
        (("--metadata", "shift=b"), "'metadata' is not JSON"),
        (("--metadata", '{"a": [1]}'), "must be a text, a number, true or false"),
    ],
)
def test_the_command_line_refuses_what_the_server_refuses(
    factory: Factory, png: bytes, tmp_path: Path, options: tuple[str, str], reason: str
):
    (tmp_path / "striped.png").write_bytes(png)
    for arguments in (("inspect", "striped", tmp_path), ("inspect-part", tmp_path)):
        done = command(factory, *arguments, *options, status=1)
        assert reason in done.stderr
        assert done.stdout == ""
