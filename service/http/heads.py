"""What the head of a request must be like, beyond what the parser of uvicorn checks (RFC 9112)."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from service.problems import Problem

HEAD_BYTES = 64 << 10
HEADERS = 100
"""Most header fields of one request."""
_UPGRADING = (b"upgrade", b"http2-settings")

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""


def check_count(headers: Headers) -> None:
    """Raises `Problem` 431 if there are more header fields than allowed."""
    if len(headers) > HEADERS:
        raise Problem("headers-too-large", limit=f"{HEADERS} header fields")


def check(version: str, url: bytes, headers: Headers) -> None:
    """Refuses what is too large, or what another server on the way could understand otherwise than this one.

    Raises:
        Problem: 431, or 400 if the version, the host or the end of the body is not clear.
    """
    if len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES:
        raise Problem("headers-too-large", limit=f"{HEAD_BYTES} bytes")
    if version not in ("1.0", "1.1"):
        raise Problem("malformed-request", reason="the version of HTTP is neither 1.0 nor 1.1")
    if len(_values(b"host", headers)) > 1:
        raise Problem("malformed-request", reason="there is more than one header Host")
    encodings = _values(b"transfer-encoding", headers)
    if encodings and (version == "1.0" or [value.strip().lower() for value in encodings] != [b"chunked"]):
        reason = "the only Transfer-Encoding is 'chunked', once, with HTTP/1.1"
        raise Problem("malformed-request", reason=reason)


def _values(name: bytes, headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for one, value in headers if one == name]


def with_host_of(url: bytes, headers: Headers) -> Headers:
    """The headers with the host of a request target that is a whole URL, which goes before the header."""
    try:
        host = b"" if url.startswith(b"/") else urlsplit(url).netloc
    except ValueError:
        raise Problem("malformed-request", reason="the address in its first line cannot be read") from None
    if not host:
        return headers
    return [(name, value) for name, value in headers if name != b"host"] + [(b"host", host)]


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request once more, without the offer of another protocol, for a parser that would follow it."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() not in _UPGRADING)
        if name not in _UPGRADING:
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
