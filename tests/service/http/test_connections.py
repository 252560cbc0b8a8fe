"""Idle connections make room for new ones, and answers that nobody takes for those that somebody does."""

import logging
import resource
from dataclasses import dataclass, field

import pytest

from service.http.connections import QUIET_SECONDS, RESERVED_FILES, OpenConnections, most_connections


@dataclass(eq=False)
class Connection:
    is_idle: bool = True
    unread_bytes: int = 0
    ended: list[str] = field(default_factory=list)

    def close_idle(self) -> None:
        self.ended.append("closed")

    def drop(self) -> None:
        self.ended.append("dropped")


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def three(clock: list[float]) -> OpenConnections:
    return OpenConnections(3, 100, lambda: clock[0])


def test_the_one_idle_longest_makes_room(three: OpenConnections):
    first, second, third, fourth, fifth = (Connection() for _ in range(5))
    assert all(three.add(one) for one in (first, second, third))
    three.used(first)
    assert three.add(fourth)
    assert [bool(one.ended) for one in (first, second, third)] == [False, True, False]
    third.is_idle = False
    assert three.add(fifth)
    assert first.ended == ["closed"]
    assert third.ended == []
    assert three.count == 3


def test_where_none_is_idle_the_new_one_is_turned_away(three: OpenConnections):
    busy = [Connection(is_idle=False) for _ in range(3)]
    assert all(three.add(one) for one in busy)
    assert not three.add(Connection())
    assert not any(one.ended for one in busy)
    three.remove(busy[0])
    assert three.add(Connection())


def test_the_answer_that_has_waited_longest_is_dropped(three: OpenConnections):
    first, second, third = (Connection(unread_bytes=40) for _ in range(3))
    for one in (first, second):
        three.waits(one)
        three.waits(one)  # it is told again with each part of an answer
    assert not first.ended
    three.waits(third)
    assert first.ended == ["dropped"]
    assert not second.ended
    assert three.unread_bytes == 80
    three.taken(second)
    assert three.unread_bytes == 40


def test_one_answer_may_be_larger_than_all_together(three: OpenConnections):
    large = Connection(unread_bytes=1000)
    three.waits(large)
    assert not large.ended


def test_the_log_says_it_once_a_minute(three: OpenConnections, clock: list[float], caplog: pytest.LogCaptureFixture):
    for _ in range(5):
        three.add(Connection(is_idle=False))
    assert caplog.text.count("INSPECT_MAX_CONNECTIONS") == 1
    clock[0] = QUIET_SECONDS
    three.add(Connection())
    assert caplog.text.count("INSPECT_MAX_CONNECTIONS") == 2


def test_there_are_never_more_connections_than_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert most_connections(800) == 800
    assert caplog.text == ""
    assert most_connections(5000) == 1024 - RESERVED_FILES
    assert "ulimit" in caplog.text
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most_connections(5000) == 5000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 50))
    assert most_connections(800) == 1
