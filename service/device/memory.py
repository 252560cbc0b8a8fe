"""How much memory is free to compute with: a GPU's, or this machine's as far as a container may use it."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Bytes that new tensors on a device may take before something fails or is killed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return max(0, min([_of_machine(PROC), *_of_control_groups(PROC, CGROUPS)]))


def _of_machine(proc: Path) -> int:
    try:
        return 1024 * _read_field(proc / "meminfo", "MemAvailable:")
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_control_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What each control group with a limit that this process is in has left; a container is one. Versions 1 and 2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, limit, usage, idle = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount = cgroups / "memory"
            limit, usage, idle = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        inside = mount / path.lstrip("/")
        # A limit of a group that is above counts too. In a container the path may be that of the machine outside.
        for folder in (inside, *inside.parents):
            try:
                most = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                yield most - used + _read_field(folder / "memory.stat", idle)
            except (OSError, ValueError):  # no such group here, or "max": no limit
                pass
            if folder == mount:
                break


def _read_field(path: Path, name: str) -> int:
    """A number from a file of lines ``NAME NUMBER ...``."""
    for line in path.read_text().splitlines():
        if line.startswith(name + " "):
            return int(line.split()[1])
    raise OSError(f"{path} has no {name}")
