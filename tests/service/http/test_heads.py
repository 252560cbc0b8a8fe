"""A head that two servers could understand differently is refused, and one that offers another protocol is read on."""

import pytest

from service.http import heads
from service.problems import Problem

HOST = (b"host", b"x")


def refused(version: str, *headers: tuple[bytes, bytes], url: bytes = b"/") -> Problem:
    with pytest.raises(Problem) as found:
        heads.check(version, url, [HOST, *headers])
    return found.value


@pytest.mark.parametrize("version", ["0.9", "2.0", "9.9", ""])
def test_other_versions_than_1_0_and_1_1_are_refused(version: str):
    problem = refused(version)
    assert problem.kind == "malformed-request"
    assert "version" in problem.detail


def test_two_hosts_are_refused_even_if_they_are_equal():
    for host in (b"x", b"y"):
        assert "Host" in refused("1.1", (b"host", host)).detail


@pytest.mark.parametrize(
    "encodings", [[b"gzip, chunked"], [b"gzip"], [b"identity"], [b"chunked", b"chunked"], [b"chunked, identity"], [b""]]
)
def test_a_body_whose_end_is_not_clear_is_refused(encodings: list[bytes]):
    problem = refused("1.1", *((b"transfer-encoding", value) for value in encodings))
    assert problem.kind == "malformed-request"
    assert "chunked" in problem.detail
    assert "chunked" in refused("1.0", (b"transfer-encoding", b"chunked")).detail


def test_usual_heads_pass():
    for version in ("1.0", "1.1"):
        heads.check(version, b"/", [HOST])
        heads.check(version, b"/", [])  # simple clients of machines leave it out
    for value in (b"chunked", b"Chunked", b" chunked "):
        heads.check("1.1", b"/", [HOST, (b"transfer-encoding", value)])


def test_heads_are_bounded_in_bytes_and_in_number():
    heads.check("1.1", b"/", [(b"cookie", b"x" * 60_000)])
    assert refused("1.1", (b"cookie", b"x" * 70_000)).kind == "headers-too-large"
    assert refused("1.1", url=b"/" + b"x" * 70_000).kind == "headers-too-large"
    heads.check_count([HOST] * heads.HEADERS)
    with pytest.raises(Problem, match=f"{heads.HEADERS} header fields"):
        heads.check_count([HOST] * (heads.HEADERS + 1))


def test_the_host_of_a_whole_url_goes_before_the_header():
    others = [(b"accept", b"*/*")]
    for url in (b"/v1/categories", b"*", b"//x/y"):
        assert heads.with_host_of(url, [HOST, *others]) == [HOST, *others]
    for headers in ([HOST, *others], others):
        found = heads.with_host_of(b"http://evil.example:80/livez", headers)
        assert found == [*others, (b"host", b"evil.example:80")]
    with pytest.raises(Problem, match="cannot be read"):
        heads.with_host_of(b"http://[1::2/", [HOST])


def test_the_offer_of_another_protocol_is_taken_out_and_nothing_else():
    offered = [
        (b"host", b"x"),
        (b"connection", b"Upgrade, HTTP2-Settings, close"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAMAAABkAAQAAP__"),
        (b"content-length", b"3"),
    ]
    assert heads.without_upgrade(b"POST", b"/a?b=c", "1.1", offered) == (
        b"POST /a?b=c HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
    )
