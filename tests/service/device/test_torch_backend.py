"""Errors of torch that concern the whole device are told apart from those of one image."""

import gc

import pytest
import torch

from service.device.allowance import Allowance
from service.device.backend import DeviceFailedError, DeviceMemoryError
from service.device.torch_backend import TorchBackend, translated


def test_too_little_memory_on_a_cpu_is_told_as_such():
    with pytest.raises(DeviceMemoryError):
        translated(lambda: torch.empty(1 << 60, dtype=torch.uint8))


@pytest.mark.cuda
def test_too_little_memory_on_a_gpu_is_told_as_such():
    with pytest.raises(DeviceMemoryError):
        translated(lambda: torch.empty(1 << 50, dtype=torch.uint8, device="cuda"))


def test_a_failure_of_the_device_is_told_as_such():
    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceFailedError, match="illegal memory access"):
        translated(fail)


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        translated(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


def test_an_error_of_memory_keeps_no_tensors():
    class Watched(torch.Tensor):
        pass

    def run_out() -> None:
        kept = torch.ones(1).as_subclass(Watched)
        torch.empty(1 << 60, dtype=torch.uint8)
        del kept

    with pytest.raises(DeviceMemoryError) as error:
        translated(run_out)
    assert error.value.__context__ is None
    assert not any(type(one) is Watched for one in gc.get_objects())


def test_a_device_that_works_passes_its_probe():
    TorchBackend(torch.device("cpu"), Allowance(1, 1 << 30, 1.0)).probe()
