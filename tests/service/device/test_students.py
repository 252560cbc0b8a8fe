"""Students in memory, up to a budget."""

import pytest

from model.detector import Detector
from model.networks.vgg import Student, Teacher, student_plan
from service.device.students import Students


@pytest.fixture(scope="module")
def pairs(teacher: Teacher) -> list[Detector]:
    return [Detector(teacher, Student(student_plan(teacher.plan))) for _ in range(4)]


@pytest.fixture(scope="module")
def one(pairs: list[Detector]) -> int:
    """Bytes of a student."""
    return sum(tensor.nbytes for tensor in pairs[0].student.state_dict().values())


def test_the_one_not_wanted_for_the_longest_time_is_dropped(pairs: list[Detector], one: int):
    dropped: list[None] = []
    students = Students(3 * one, lambda: dropped.append(None))
    for key in "abc":
        students.put(key, pairs[0])
    assert students.get("a") is pairs[0]
    assert dropped == []
    students.put("d", pairs[3])
    assert [key for key in "abcd" if students.get(key) is not None] == ["a", "c", "d"]
    assert len(dropped) == 1


def test_one_stays_whatever_the_budget(pairs: list[Detector]):
    students = Students(0)
    students.put("a", pairs[0])
    assert students.get("a") is pairs[0]
    students.put("b", pairs[1])
    assert students.get("a") is None
    assert students.get("b") is pairs[1]


def test_what_is_taken_makes_room(pairs: list[Detector], one: int):
    students = Students(2 * one)
    students.put("a", pairs[0])
    students.put("b", pairs[1])
    assert students.take("a") is pairs[0]
    assert students.take("a") is None
    students.put("c", pairs[2])
    assert students.get("b") is pairs[1]


def test_one_that_is_put_again_counts_once(pairs: list[Detector], one: int):
    students = Students(2 * one)
    for _ in range(5):
        students.put("a", pairs[0])
    students.put("b", pairs[1])
    assert students.get("a") is pairs[0]
