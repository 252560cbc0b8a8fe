"""What other people's clients send: every usual name of a media type, odd forms, HEAD; and slips are told apart."""

from base64 import b64encode, urlsafe_b64encode
from gzip import compress

import httpx
import pytest

from tests.conftest import Factory
from tests.end_to_end.conftest import Server
from tests.end_to_end.test_bounds import connect, read_to_the_end
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem

TYPES = [
    "image/jpg", "image/pjpeg", "image/x-png", "image/tif", "image/x-ms-bmp", "image/x-anything", "image/*",
    "binary/octet-stream", "application/octet-stream", "IMAGE/PNG; q=1", "",
]  # fmt: skip
BOUNDARY = b"----NetBoundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.mark.parametrize("media_type", TYPES)
def test_the_bytes_decide_whatever_the_media_type_is_called(client: httpx.Client, png: bytes, media_type: str):
    answer = client.post(URL, content=png, headers={"Content-Type": media_type})
    assert answer.status_code == 200, answer.text
    problem(client.post(URL, content=b"nonsense", headers={"Content-Type": media_type}), 422, "not-decodable")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "gzip, identity"])
def test_415_a_content_encoding_is_named(client: httpx.Client, png: bytes, encoding: str):
    coded = {"Content-Encoding": encoding}
    for response in (
        client.post(URL, content=compress(png), headers=PNG | coded),
        client.post(BATCH, files={"image": ("a.png", png)}, headers=coded),
    ):
        assert encoding.lower() in problem(response, 415, "unsupported-media-type")
    assert client.post(URL, content=png, headers=PNG | {"Content-Encoding": "identity"}).status_code == 200


def test_422_an_image_in_text_is_told_so(client: httpx.Client, png: bytes):
    plain, url = b64encode(png), urlsafe_b64encode(png)
    for sent in (plain, url, b'"' + plain + b'"', b"\r\n" + plain[:76] + b"\r\n" + plain[76:]):
        assert "base64" in problem(client.post(URL, content=sent, headers=PNG), 422, "not-decodable")
    for magic in (b"\xff\xd8\xff\xe0" + bytes(50), b"BM" + bytes(50), b"II*\0" + bytes(50), b"RIFF" + bytes(50)):
        assert "base64" in problem(client.post(URL, content=b64encode(magic), headers=PNG), 422, "not-decodable")
    data_url = b"data:image/png;base64," + plain
    assert "data URL" in problem(client.post(URL, content=data_url, headers=PNG), 422, "not-decodable")
    results = client.post(BATCH, files=[("image", ("a.png", plain)), ("image", ("b.png", png))]).json()["results"]
    assert "base64" in results[0]["detail"]
    assert "score" in results[1]
    assert "base64" not in problem(client.post(URL, content=b"nonsense", headers=PNG), 422, "not-decodable")
    for media_type in ("text/plain", "application/json"):
        refused = client.post(URL, content=data_url, headers={"Content-Type": media_type})
        assert "base64" in problem(refused, 415, "unsupported-media-type")


# Forms.


def form(disposition: bytes, content: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    head = b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n"
    return before + head + content + b"\r\n--" + BOUNDARY + b"--\r\n" + after


@pytest.mark.parametrize(
    "disposition",
    [
        b"name=\"image\"; filename*=utf-8''pi%C3%A8ce.png",
        b"name=image; filename*=UTF-8'de'Teil.png",
        b"filename*=utf-8''a.png; name=\"image\"",
        b"name=\"image\"; filename=\"a.png\"; filename*=utf-8''a.png",
        "name=\"image\"; filename=\"部品.png\"".encode(),
        b'name="image"; filename="C:\\Bilder\\teil.png"',
        b'name="image"; filename=""',
    ],
)  # fmt: skip
def test_however_a_file_is_named_it_is_a_file(client: httpx.Client, png: bytes, disposition: bytes):
    answer = client.post(URL, content=form(disposition, png), headers=FORM)
    assert answer.status_code == 200, answer.text
    assert "score" in client.post(BATCH, content=form(disposition, png), headers=FORM).json()["results"][0]


def test_400_a_field_without_any_file_name_is_no_file(client: httpx.Client, png: bytes):
    for disposition in (b'name="image"', b'name="image"; filenames="a.png"', b'name="image"; x="filename"'):
        problem(client.post(URL, content=form(disposition, png), headers=FORM), 400, "no-image")


BEFORE = [b"This is a message in several parts.\r\n", b"\r\n", b"a\r\n--\r\n--other\r\n", b"\n\r\n"]


@pytest.mark.parametrize("chunk", [1, 7, 200])
@pytest.mark.parametrize("before", BEFORE)
def test_what_stands_around_the_parts_is_ignored(client: httpx.Client, png: bytes, before: bytes, chunk: int):
    whole = form(b'name="image"; filename="a.png"', png, before, b"and the end\r\n")
    start = [whole[place : min(place + chunk, 200)] for place in range(0, 200, chunk)]
    answer = client.post(URL, content=[*start, whole[200:]], headers=FORM)
    assert answer.status_code == 200, answer.text


def test_400_a_form_without_its_boundary_is_refused(client: httpx.Client):
    for body in (b"x" * 1000, b"x" * 100_000):
        problem(client.post(URL, content=body, headers=FORM), 400, "malformed-form")
    for body in (b"\r\n" * 50_000, b"x--" + BOUNDARY):
        assert client.post(URL, content=body, headers=FORM).status_code == 400


# HEAD.


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/v1/categories", "/v1/categories/striped", "/openapi.json", "/docs", "/",
     "/console/main.js", "/v1/categories/nothing", "/nothing"],
)  # fmt: skip
def test_head_is_get_without_the_body(client: httpx.Client, path: str):
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    for name in ("content-type", "content-security-policy", "x-content-type-options"):
        assert head.headers.get(name) == got.headers.get(name), name
    if path != "/metrics":  # whose figures change from call to call
        assert head.headers["content-length"] == got.headers["content-length"]


def test_the_connection_goes_on_after_a_head(server: Server):
    with connect(server.url) as connection:
        connection.sendall(b"HEAD /v1/categories HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first, second, body = read_to_the_end(connection).split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")
    assert body == b'{"status":"alive"}'


def test_405_head_of_what_is_sent_to_only(client: httpx.Client):
    for path in (URL, "/v1/categories/striped/reload"):
        head = client.head(path)
        assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")


# Parameters.


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("localise=always", "did you mean 'localize'?"),
        ("Localize=always", "did you mean 'localize'?"),
        ("localize=always&mpa=distance", "did you mean 'map'?"),
        ("threshold=1", "there is 'localize', 'lot', 'map', 'metadata', 'part_id', 'station'"),
        ("localize=always&localize=never", "more than once"),
        ("=1", "there is no query parameter ''"),
    ],
)
def test_422_a_parameter_that_is_none_is_told_with_the_one_meant(
    client: httpx.Client, png: bytes, query: str, told: str
):
    assert told in problem(client.post(f"{URL}?{query}", content=png, headers=PNG), 422, "invalid-request")
    sent = {"files": {"image": ("a.png", png)}}
    assert told in problem(client.post(f"{BATCH}?{query}", **sent), 422, "invalid-request")


def test_422_calls_without_parameters_refuse_them_too(client: httpx.Client):
    for path in ("/livez", "/readyz", "/metrics", "/v1/categories", "/v1/categories/striped"):
        assert "there is none" in problem(client.get(path + "?verbose=1"), 422, "invalid-request")
    for call in ("reload", "rollback"):
        problem(client.post(f"/v1/categories/striped/{call}?force=1"), 422, "invalid-request")


def test_pages_for_people_may_be_asked_with_anything(client: httpx.Client):
    for path in ("/", "/docs", "/console/main.js"):
        assert client.get(path + "?from=mail").status_code == 200
