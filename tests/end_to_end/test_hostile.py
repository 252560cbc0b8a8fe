"""Files and requests made to break a server are refused in words, and cost it no more memory than is stated."""

import http.client
import io
import itertools
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from fuzz.make_corpus import originals, saved
from model.images import ImageError, decode_image
from tests.conftest import ROOT, Factory, surface
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_decoders import workers
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem

PIXELS = 4_000_000
BYTES_PER_PIXEL = 32
"""Of the largest image, for each thread that decodes; `docs/deploying.md` states it."""
SLACK_BYTES = 16 << 20
"""For what allocators keep."""
FILE_BYTES = 4 << 20
ANY = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def small(factory: Factory) -> Iterator[Server]:
    with running_server(
        factory.weights, max_image_pixels=str(PIXELS), max_image_bytes=str(FILE_BYTES), decode_threads="1"
    ) as server:
        yield server


@pytest.fixture
def bounded(small: Server, factory: Factory) -> Iterator[Server]:
    """The small server, whose memory must not have grown by more than one image may cost, and which still serves.

    Its memory is that of all its processes; none may have been replaced.
    """

    def memory(name: str, process: int) -> int:
        status = Path(f"/proc/{process}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]

    def usual() -> httpx.Response:
        png = (factory.data / "good" / "000.png").read_bytes()
        return httpx.post(small.url + URL, content=png, headers=PNG)

    assert usual().status_code == 200
    processes = [small.process.pid, *workers(small)]
    assert len(processes) == 2
    before = 0
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")  # the peak starts again from here
        before += memory("VmRSS", process)
    yield small
    assert workers(small) == processes[1:]
    grown = sum(memory("VmHWM", process) for process in processes) - before
    assert grown < BYTES_PER_PIXEL * PIXELS + 2 * FILE_BYTES + SLACK_BYTES, f"{grown >> 20} MiB"
    assert usual().status_code == 200


def ask(url: str, data: bytes, path: str = URL) -> httpx.Response:
    """Sends a file; the answer must be a verdict or a problem that is not the server's fault, so no passed deadline."""
    response = httpx.post(url + path, content=data, headers=ANY, timeout=60)
    if response.status_code != 200:
        assert response.status_code in (400, 413, 422), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert "Traceback" not in response.text
    return response


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, idat: bytes, *before: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def tiff_of(tags: dict[int, tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF with one directory at byte 8: tag -> (type, count, value or offset); data comes after."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + data


def plain_tiff(width: int, height: int, length: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    """Tags of an 8-bit grey image in one strip whose data follows at once; ``more`` adds to them by ``t`` + number."""
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 0),
        277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, length),
    }  # fmt: skip
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags[273] = (4, 1, 8 + 2 + 12 * len(tags) + 4)
    return tags


def zeros(size: int) -> bytes:
    """A gigabyte in a megabyte: that many zero bytes, deflated."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def webp_of(kind: bytes, payload: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_with_size(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("L", (64, 64)), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with_scans(scans: int) -> bytes:
    """The last scan of a progressive JPEG, again and again: 14 bytes, and work for each of 4 million pixels."""
    data = saved(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


GIB = zeros(1 << 30)
LOSSLESS_16383 = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(40)
NOTHING = b"\0" * 64
BOMBS: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "png that declares much": (lambda: png_of(60_000, 60_000, GIB), {413}),
    "png that declares a long side": (lambda: png_of(2_000_000, 1, GIB), {413}),
    "png with more pixels than it declares": (lambda: png_of(100, 100, GIB), {200, 422}),
    "png with a compressed text": (lambda: png_of(9, 9, NOTHING, chunk(b"zTXt", b"a\0\0" + GIB)), {422}),
    "png with a compressed international text": (
        lambda: png_of(9, 9, NOTHING, chunk(b"iTXt", b"a\0\1\0\0\0" + GIB)),
        {422},
    ),
    "png with a compressed colour profile": (lambda: png_of(9, 9, NOTHING, chunk(b"iCCP", b"a\0\0" + GIB)), {422}),
    "png with a chunk that declares 2 GB": (
        lambda: b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR" + bytes(100),
        {422},
    ),
    "tiff that declares much": (lambda: tiff_of(plain_tiff(60_000, 60_000, 64), NOTHING), {413}),
    "tiff that declares the most": (lambda: tiff_of(plain_tiff(2**32 - 1, 2**32 - 1, 64), NOTHING), {413, 422}),
    "tiff with huge strips": (
        lambda: tiff_of(plain_tiff(64, 64, 2**32 - 1, t278=(4, 1, 2**32 - 1)), bytes(4096)),
        {200, 422},
    ),
    "deflated tiff with huge strips": (
        lambda: tiff_of(plain_tiff(64, 64, 2**31, t259=(3, 1, 8), t278=(4, 1, 2**32 - 1)), GIB),
        {200, 422},
    ),
    "deflated tiff with more pixels than it declares": (
        lambda: tiff_of(plain_tiff(64, 64, len(GIB), t259=(3, 1, 8)), GIB),
        {200, 422},
    ),
    "deflated tiff with huge tiles": (
        lambda: tiff_of(
            {k: v for k, v in plain_tiff(64, 64, 9, t259=(3, 1, 8)).items() if k not in (273, 278, 279)}
            | {322: (4, 1, 1 << 30), 323: (4, 1, 1 << 30), 324: (4, 1, 200), 325: (4, 1, 1 << 20)},
            GIB,
        ),
        {413},
    ),
    "tiff with a tag of 4 billion values": (
        lambda: tiff_of(plain_tiff(64, 64, 4096, t270=(2, 2**32 - 1, 8)), bytes(4096)),
        {200, 422},
    ),
    "tiff with 65535 samples": (lambda: tiff_of(plain_tiff(64, 64, 64, t277=(3, 1, 65535)), NOTHING), {422}),
    "webp that declares much": (lambda: webp_of(b"VP8L", LOSSLESS_16383), {413}),
    "webp whose canvas declares much": (
        lambda: webp_of(b"VP8X", bytes(4) + b"\xff\xff\xff" * 2),
        {413, 422},
    ),
    "jpeg that declares much": (lambda: jpeg_with_size(65_535, 65_535), {413}),
    "jpeg with less than it declares": (lambda: jpeg_with_size(2000, 2000), {422}),
    "tiff whose pages go round": (
        lambda: tiff_of(plain_tiff(16, 16, 256), bytes(256), following=8),
        {200, 422},
    ),
    "bmp of the least height": (
        lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 9, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0) + NOTHING,
        {413},
    ),
    "jpeg of a hundred thousand scans": (lambda: jpeg_with_scans(100_000), {413}),
    "jpeg of a million segments": (
        lambda: b"\xff\xd8" + b"\xff\xe5\0\2" * 1_000_000 + saved(Image.new("L", (9, 9)), "JPEG")[2:],
        {413},
    ),
    "png of many chunks": (lambda: png_of(9, 9, NOTHING, chunk(b"prVt", b"") * 300_000), {413}),
    "bmp that declares much": (
        lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        {413},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs(bounded: Server, name: str):
    make, statuses = BOMBS[name]
    data = make()
    assert len(data) < FILE_BYTES
    assert ask(bounded.url, data).status_code in statuses


def test_bombs_in_a_batch_do_not_spoil_the_others(bounded: Server, factory: Factory):
    png = (factory.data / "good" / "000.png").read_bytes()
    files = [("image", ("bomb", make())) for make, _ in BOMBS.values()] + [("image", ("good.png", png))]
    results = httpx.post(bounded.url + BATCH, files=files, timeout=60).json()["results"]
    assert len(results) == len(files)
    assert "score" in results[-1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "PA", "CMYK", "I;16", "1"])
def test_the_largest_images_stay_within_the_bound(bounded: Server, mode: str):
    if mode == "CMYK":
        data = saved(Image.new(mode, (2000, 2000), (9, 9, 9, 9)), "JPEG")
    elif mode == "PA":
        data = saved(Image.new("P", (2000, 2000)), "PNG", transparency=0)
    else:
        data = saved(Image.new(mode, (2000, 2000), 1 if mode == "1" else 40_000 if mode == "I;16" else 0), "PNG")
    assert ask(bounded.url, data, URL + "?localize=always").status_code == 200
    overlay = httpx.post(
        bounded.url + URL + "?localize=always", content=data, headers=ANY | {"Accept": "image/png"}, timeout=60
    )
    assert overlay.headers["content-type"] == "image/png"


def animated(format_name: str, frames: int = 3) -> bytes:
    images = [Image.new("RGB", (16, 16), (shade * 50, 0, 0)) for shade in range(frames)]
    return saved(images[0], format_name, save_all=True, append_images=images[1:])


def nan_tiff(channels: int) -> bytes:
    data = np.full((16, 16, channels), np.nan, np.float32).tobytes()
    tags = plain_tiff(16, 16, len(data), t258=(3, 1, 32), t277=(3, 1, channels), t339=(3, 1, 3))
    return tiff_of(tags, data)


STRANGE: dict[str, Callable[[], bytes]] = {
    "animated png": lambda: animated("PNG"),
    "animated webp": lambda: animated("WEBP"),
    "animated gif": lambda: animated("GIF"),
    "tiff of several pages": lambda: animated("TIFF"),
    "float tiff of nan": lambda: nan_tiff(1),
    "float tiff of nan in colour": lambda: nan_tiff(3),
    "png 0xN": lambda: png_of(0, 9, NOTHING),
    "png Nx0": lambda: png_of(9, 0, NOTHING),
    "jpeg 0xN": lambda: jpeg_with_size(0, 64),
    "jpeg Nx0": lambda: jpeg_with_size(64, 0),
    "tiff 0xN": lambda: tiff_of(plain_tiff(0, 16, 256), bytes(256)),
    "tiff Nx0": lambda: tiff_of(plain_tiff(16, 0, 256), bytes(256)),
    "bmp 0xN": lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 0, 9, 1, 24, 0, 0, 0, 0, 0, 0) + NOTHING,
    "webp without a picture": lambda: webp_of(b"VP8 ", b""),
    "svg": lambda: (
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    ),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "pdf": lambda: saved(Image.new("RGB", (9, 9)), "PDF"),
    "zip": lambda: zipped(b""),
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "half a signature": lambda: b"\x89PN",
    "one byte": lambda: b"\0",
}


def zipped(before: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("run.sh", "#!/bin/sh\n")
    return before + buffer.getvalue()


@pytest.mark.parametrize("name", STRANGE)
def test_422_what_is_no_single_whole_image(bounded: Server, name: str):
    response = httpx.post(bounded.url + URL, content=STRANGE[name](), headers=ANY)
    problem(response, 422, "not-decodable")
    assert "passwd" not in response.text


def exif(orientation: int) -> bytes:
    """An EXIF block that says nothing but this."""
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x0112, 3, 1, orientation, 0)


@pytest.mark.parametrize(
    "block",
    [
        exif(99),
        exif(0),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 2, 9, 26) + b"\0\0\0\0sideways\0",
        exif(2**32 - 1),
        b"Exif\0\0" + b"\xff" * 60_000,
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x8769, 4, 1, 8) * 5000,
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0",
    ],
    ids=["99", "0", "text", "most", "noise", "round and round", "beyond", "empty"],
)
def test_absurd_exif_says_nothing_of_the_picture(bounded: Server, block: bytes):
    image = Image.fromarray(surface(1, size=(40, 60)))
    for format_name in ("JPEG", "PNG", "WEBP"):
        response = ask(bounded.url, saved(image, format_name, exif=block))
        assert response.status_code == 200
        assert (response.json()["image"]["width"], response.json()["image"]["height"]) == (60, 40)


def test_polyglots_are_the_picture_they_begin_with(bounded: Server):
    picture = Image.fromarray(surface(1))
    script = b"<script>alert(1)</script>"
    for format_name in ("PNG", "JPEG", "BMP", "WEBP", "TIFF"):
        whole = saved(picture, format_name)
        for data in (zipped(whole), whole + script, whole + saved(picture, "PNG")):
            response = ask(bounded.url, data)
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-content-type-options"] == "nosniff"
    problem(httpx.post(bounded.url + URL, content=b"GIF89a" + saved(picture, "PNG"), headers=PNG), 422, "not-decodable")


def test_the_content_type_does_not_choose_the_decoder(bounded: Server):
    data = saved(Image.fromarray(surface(1)), "JPEG")
    any_image = ("image/png", "image/tiff", "IMAGE/PNG; charset=x", "application/octet-stream", "image/svg+xml", ";")
    for media_type in any_image:
        assert httpx.post(bounded.url + URL, content=data, headers={"Content-Type": media_type}).status_code == 200
    for media_type in ("*/*", "text/html", "imagine/png", "multipart/mixed; boundary=x"):
        response = httpx.post(bounded.url + URL, content=data, headers={"Content-Type": media_type})
        problem(response, 415, "unsupported-media-type")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file cut short, with bits turned, with a stretch replaced, doubled or taken out; more often near its head."""
    parts = bytearray(data)
    place = int(rng.integers(len(data)) if rng.random() < 0.5 else rng.integers(min(len(data), 200)))
    length = int(rng.integers(1, 16))
    match rng.integers(5):
        case 0:
            return data[:place]
        case 1:
            for _ in range(length):
                parts[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        case 2:
            parts[place : place + length] = (
                rng.choice([0, 255, 127, 128, int(rng.integers(256))], length)
                .astype(np.uint8)
                .tobytes()[: len(data) - place]
            )
        case 3:
            parts[place:place] = parts[place : place + length]
        case 4:
            del parts[place : place + length]
    return bytes(parts)


@pytest.mark.parametrize("name", originals())
def test_damaged_files_are_refused_or_read_but_never_break_the_reader(name: str):
    whole = originals()[name]
    assert decode_image(whole).shape[2] == 3
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(300):
        try:
            image = decode_image(damaged(whole, rng), 200_000)
        except ImageError:
            refused += 1
        else:
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
            assert image.shape[0] * image.shape[1] <= 200_000
    assert refused > 20


def test_damaged_files_over_the_socket(bounded: Server):
    rng = np.random.default_rng(12)
    refused = 0
    for whole in originals().values():
        for _ in range(6):
            refused += ask(bounded.url, damaged(whole, rng)).status_code != 200
    assert refused > 20


JPEGS: tuple[dict[str, object], ...] = ({}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"quality": 30})


def test_half_a_photograph_is_refused(bounded: Server):
    photograph = Image.fromarray(surface(1, size=(200, 300)))
    for mode, options in itertools.product(("RGB", "L", "CMYK"), JPEGS):
        whole = saved(photograph.convert(mode), "JPEG", **options)
        for share in (0.4, 0.7, 0.95):
            part = whole[: round(share * len(whole))]
            for data in (part, part + b"\xff\xd9", part + bytes(len(whole) - len(part))):
                problem(httpx.post(bounded.url + URL, content=data, headers=ANY), 422, "not-decodable")
    for format_name in ("PNG", "BMP", "WEBP", "TIFF"):
        whole = saved(photograph, format_name)
        for share in (0.4, 0.7, 0.95):
            data = whole[: round(share * len(whole))]
            problem(httpx.post(bounded.url + URL, content=data, headers=ANY), 422, "not-decodable")


@pytest.mark.parametrize("options", [*JPEGS, {"progressive": True}])
def test_a_photograph_of_something_grey_is_whole(options: dict[str, object]):
    for mode, size in itertools.product(("RGB", "L", "CMYK"), ((64, 64), (33, 47), (1, 1))):
        grey = saved(Image.new("L", size, 128).convert(mode), "JPEG", **options)
        for data in (grey, grey + b"more", grey + saved(Image.new("L", (9, 9)), "JPEG")):
            assert decode_image(data).shape[:2] == size[::-1]


# Requests.


def raw(url: str, target: str, body: bytes = b"x", method: str = "POST") -> tuple[int, dict[str, object]]:
    """Asks for a target as it stands, which real clients would put right first."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.putrequest(method, target, skip_host=False)
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    assert response.headers["content-type"] == "application/problem+json"
    return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    "category",
    [
        "..", "../..", "../../etc/passwd", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cetc", "%00", "a%00b",
        "%252e%252e", "%ff%fe", "%c0%ae%c0%ae", "%e2%80%ae", "%f0%9f%94%a5", "%ed%a0%80", "striped%0d%0aX-Evil:%20yes",
        "striped%20", "STRIPED", "striped%cc%81", "s%d1%82riped", "%0a", "*", "%25", "teachers", ".%2fstriped",
        "striped%2f", "%e2%80%8bstriped", "x" * 50_000, "%", "%zz", "~", "{category}", "$(id)", "';--", "con",
    ],
)  # fmt: skip
def test_odd_names_of_categories_are_unknown(small: Server, category: str):
    for method, call in (("POST", "/inspect"), ("POST", "/inspect-batch"), ("GET", "")):
        status, body = raw(small.url, f"/v1/categories/{category}{call}", method=method)
        assert status in (404, 405), body
        assert "passwd:" not in str(body)
        assert "root:" not in str(body)
    series = httpx.get(small.url + "/metrics").text
    assert set(re.findall(r'category="([^"]*)"', series)) <= {"striped", "brushed", "fresh", "-"}


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def part(name: str, content: bytes, more: str = '; filename="a.png"') -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content


def test_forms_that_are_odd(bounded: Server, factory: Factory):
    png = (factory.data / "good" / "000.png").read_bytes()
    good = part("image", png)
    text = part("note", b"x", "")
    cases: list[tuple[bytes, int]] = [
        (form(good, good), 413),
        (form(part("image", b"")), 400),
        (form(part("", png)), 400),
        (form(part("image", png, "")), 400),
        (form(part("image", b"text", ""), good), 400),
        (form(good, *[text] * 500), 422),
        (form(*[text] * 500, good), 422),
        (form(*[part("lot", b"7", "")] * 500, good), 422),
        (form(part("lot", b"7" * 500_000, ""), good), 422),
        (form(*[text] * 5000, good), 400),
        (form(*[part("image", b"x")] * 500), 413),
        (form(part("image", png, '; filename="../../etc/passwd"')), 200),
        (form(part("image", png, '; filename="\0\x01"')), 200),
        (form(part("image", png, '; filename=""')), 200),
        (form(b"X-Long: " + b"x" * 100_000 + b"\r\n" + good), 400),
        (form(b"X: y\r\n" * 10_000 + good), 400),
        (form(b"Content-Disposition: attachment\r\n\r\n" + png), 400),
        (form(b"\r\n" + png), 400),
        (form(good)[:-10], 400),
        (form(), 400),
        (b"--b--\r\n" + form(good), 400),
        (b"x" * 100_000, 400),
        (b"\r\n" * 50_000, 400),
    ]
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    found = [httpx.post(bounded.url + URL, content=body, headers=kind, timeout=30).status_code for body, _ in cases]
    assert found == [wanted for _, wanted in cases]
    for body, _ in cases:
        found_in_batch = httpx.post(bounded.url + BATCH, content=body, headers=kind, timeout=30).status_code
        assert found_in_batch in (200, 400, 413, 422)


def test_boundaries_that_are_odd(bounded: Server, factory: Factory):
    png = (factory.data / "good" / "000.png").read_bytes()
    for parameter in (
        "", "; boundary=", '; boundary=""', "; boundary=\xff", "; boundary=" + "b" * 10_000, "; boundary",
        "; charset=utf-7", "; boundary=b; charset=no-such-set", "; boundary=b; boundary=c", "; boundary=--",
        "; boundary=b\tb",
    ):  # fmt: skip
        kind = {"Content-Type": ("multipart/form-data" + parameter).encode("latin-1")}
        for path in (URL, BATCH):
            response = httpx.post(bounded.url + path, content=form(part("image", png)), headers=kind, timeout=30)
            assert response.status_code in (200, 400, 422), (parameter[:50], response.text)


def test_the_bound_is_the_documented_one():
    assert f"{BYTES_PER_PIXEL} bytes per pixel" in " ".join((ROOT / "docs" / "deploying.md").read_text().split())
