"""Which names are this server's, and which requests a page of another origin has sent."""

import socket

import pytest
from starlette.datastructures import Headers

from service.http.origin import is_foreign, is_known_host

KNOWN = [
    "127.0.0.1", "127.0.0.1:8000", "10.1.2.3:80", "[::1]", "[::1]:8000", "[fe80::1]", "localhost", "localhost:8000",
    "LOCALHOST", "inspect", "inspect:8000", "eca_inspect", "camera-pc", "a.localhost", "line3.local", "line3.local.",
    "inspect.default.svc", "inspect.default.svc.cluster.local:8000", "inspect.plant.internal",
]  # fmt: skip
UNKNOWN = [
    "evil.example", "evil.example:8000", "evil.example.", "127.0.0.1.evil.example", "localhost.evil.example", "127.1",
    "256.0.0.1", "[evil.example]", "[::1", "::1", "a@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1:x", "a b", "x/y",
    "evil.example#localhost", "notlocal.example", "évil.example", "..", "",
]  # fmt: skip


@pytest.mark.parametrize("host", KNOWN)
def test_addresses_and_names_that_nobody_can_register_are_known(host: str):
    assert is_known_host(host, ())


@pytest.mark.parametrize("host", UNKNOWN)
def test_every_other_name_is_not(host: str):
    assert not is_known_host(host, ("inspect.example",))


def test_this_machines_own_name_is_known(monkeypatch: pytest.MonkeyPatch):
    assert is_known_host(socket.gethostname(), ())
    monkeypatch.setattr(socket, "gethostname", lambda: "Line3.Plant.Example")
    assert is_known_host("line3.plant.example:8000", ())
    assert not is_known_host("line4.plant.example", ())


def test_names_are_allowed_one_by_one_below_a_domain_or_all():
    allowed = ("inspect.example", "*.plant.example")
    assert is_known_host("Inspect.Example:443", allowed)
    assert is_known_host("line3.plant.example", allowed)
    assert is_known_host("a.line3.plant.example", allowed)
    for host in ("plant.example", "notplant.example", "other.example", "inspect.example.evil.example"):
        assert not is_known_host(host, allowed), host
    assert is_known_host("whatever.example", ("*",))


def foreign(*allowed: str, **headers: str) -> bool:
    return is_foreign(Headers({name.replace("_", "-"): value for name, value in headers.items()}), allowed)


def test_programs_and_the_servers_own_pages_are_not_foreign():
    assert not foreign(host="inspect")
    for host, origin in (
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("inspect.example", "https://inspect.example"),
        ("inspect.example:443", "https://inspect.example"),
        ("inspect:80", "http://inspect"),
        ("INSPECT:8000", "http://inspect:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
    ):
        assert not foreign(host=host, origin=origin), origin
    # A proxy that changes the host, and the browser's or the proxy's own word for it.
    assert not foreign(host="127.0.0.1:8000", origin="https://inspect.example", sec_fetch_site="same-origin")
    assert not foreign(host="127.0.0.1:8000", origin="https://a.example", x_forwarded_host="a.example, b.example")


def test_pages_of_other_origins_are_foreign():
    for origin in (
        "http://evil.example", "http://127.0.0.1:8001", "http://127.0.0.1", "https://127.0.0.1", "null", "file://", "",
        "http://127.0.0.1:8000.evil.example",
    ):  # fmt: skip
        assert foreign(host="127.0.0.1:8000", origin=origin), origin
        assert foreign(host="127.0.0.1:8000", origin=origin, sec_fetch_site="cross-site"), origin
    for site in ("cross-site", "same-site", "odd"):
        assert foreign(host="127.0.0.1:8000", sec_fetch_site=site), site
        assert foreign(host="127.0.0.1:8000", origin="http://127.0.0.1:8000", sec_fetch_site=site), site


def test_pages_of_named_origins_are_not():
    mes = "https://mes.example"
    assert not foreign(mes, host="inspect", origin=mes, sec_fetch_site="cross-site")
    assert not foreign(mes, host="inspect", origin=mes)
    for origin in ("http://mes.example", "https://mes.example:8443", "https://mes.example.evil.example"):
        assert foreign(mes, host="inspect", origin=origin), origin
