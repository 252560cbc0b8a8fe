"""Free memory is the machine's, or what a container has left of its limit, whichever is less."""

import os
from pathlib import Path

import pytest
import torch

from service.device import memory
from service.device.memory import available_bytes

GIB = 1 << 30
CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of ``/``, of a machine with 10 GiB free and no control groups."""
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99999999 kB\nMemAvailable:   {10 * GIB // 1024} kB\n")
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version_2(folder: Path, most: str, used: int, idle: int = 0) -> None:
    write(folder / "memory.max", f"{most}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {idle}\nactive_file 7\n")


def version_1(folder: Path, most: int, used: int, idle: int) -> None:
    write(folder / "memory.limit_in_bytes", f"{most}\n")
    write(folder / "memory.usage_in_bytes", f"{used}\n")
    write(folder / "memory.stat", f"inactive_file 5\ntotal_inactive_file {idle}\n")


def test_here_it_is_something_and_no_more_than_the_machine_has():
    assert 0 < available_bytes(CPU) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_without_a_limit_it_is_the_machines(machine: Path):
    assert available_bytes(CPU) == 10 * GIB
    write(machine / "proc" / "self" / "cgroup", "0::/user.slice\n")
    version_2(machine / "cgroup" / "user.slice", "max", GIB)
    assert available_bytes(CPU) == 10 * GIB


def test_a_container_has_what_is_left_of_its_limit_and_what_files_need_not_keep(machine: Path):
    write(machine / "proc" / "self" / "cgroup", "0::/\n")
    version_2(machine / "cgroup", str(4 * GIB), used=3 * GIB, idle=GIB // 2)
    assert available_bytes(CPU) == GIB + GIB // 2


def test_the_limit_of_a_group_above_counts_too(machine: Path):
    write(machine / "proc" / "self" / "cgroup", "0::/system.slice/inspect.service\n")
    version_2(machine / "cgroup" / "system.slice" / "inspect.service", str(8 * GIB), GIB)
    version_2(machine / "cgroup" / "system.slice", str(3 * GIB), GIB)
    assert available_bytes(CPU) == 2 * GIB


@pytest.mark.parametrize("path", ["/docker/0123", "/"])
def test_control_groups_of_version_1_count_too(machine: Path, path: str):
    """In a container the path may be one of the machine outside, which is not there inside."""
    write(machine / "proc" / "self" / "cgroup", f"5:devices:/\n4:cpu,memory:{path}\n0::/\n")
    version_1(machine / "cgroup" / "memory", 2 * GIB, GIB, idle=GIB // 4)
    assert available_bytes(CPU) == GIB + GIB // 4


def test_a_limit_that_is_passed_leaves_nothing(machine: Path):
    write(machine / "proc" / "self" / "cgroup", "0::/\n")
    version_2(machine / "cgroup", str(GIB), used=2 * GIB)
    assert available_bytes(CPU) == 0


def test_where_the_system_does_not_say_it_is_what_the_machine_has(machine: Path):
    (machine / "proc" / "meminfo").unlink()
    assert available_bytes(CPU) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.cuda
def test_on_a_gpu_it_is_the_gpus():
    device = torch.device("cuda")
    before = available_bytes(device)
    kept = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    assert before - available_bytes(device) >= kept.nbytes
