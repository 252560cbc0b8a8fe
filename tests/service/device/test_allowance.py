"""How many images of a size make one batch, and which sizes are refused."""

import math

import pytest

from model.memory import bytes_per_image
from model.networks.vgg import VGG16
from service.device.allowance import Allowance, TooCostlyError

MUCH = 1 << 40


@pytest.mark.parametrize(
    ("images", "side", "at_once"),
    [
        *[(8, 32, 8), (8, 256, 8), (8, 257, 4), (8, 512, 2), (8, 1024, 1), (8, 2048, 1)],
        *[(64, 512, 16), (64, 300, 32), (12, 128, 12), (1, 2048, 1)],
    ],
)
def test_a_batch_has_fewer_images_where_they_are_large(images: int, side: int, at_once: int):
    assert Allowance(images, MUCH, math.inf).images_of(VGG16, side) == at_once


@pytest.mark.parametrize(("fits", "at_once"), [(20, 8), (8, 8), (7, 4), (3, 2), (1, 1)])
def test_a_batch_has_no_more_images_than_fit_into_the_memory(fits: int, at_once: int):
    memory = fits * bytes_per_image(VGG16, 128)
    assert Allowance(8, memory, math.inf).images_of(VGG16, 128) == at_once


def test_half_the_precision_takes_half_the_memory():
    memory = 2 * bytes_per_image(VGG16, 128)
    assert Allowance(8, memory, math.inf, bytes_per_value=2).images_of(VGG16, 128) == 4


def test_an_image_that_takes_more_memory_than_a_batch_may_is_refused_with_both_numbers():
    with pytest.raises(TooCostlyError) as error:
        Allowance(8, 4_200_000_000, math.inf).images_of(VGG16, 2048)
    assert "2048x2048 pixels would take about 17 GB" in str(error.value)
    assert "more than the 4.2 GB" in str(error.value)
    assert "INSPECT_DEVICE_MEMORY_BYTES" in str(error.value)


@pytest.mark.parametrize(("fits", "at_once"), [(20.5, 8), (7.9, 4), (1.1, 1)])
def test_a_batch_has_no_more_images_than_fit_into_the_time(fits: float, at_once: int):
    allowance = Allowance(8, MUCH, seconds=3.0)
    assert allowance.images_of(VGG16, 128) == 8
    allowance.learn_speed_of(VGG16, 3.0 / fits / 128**2)
    assert allowance.images_of(VGG16, 128) == at_once


def test_an_image_that_takes_more_time_than_a_batch_may_is_refused_with_both_numbers():
    allowance = Allowance(8, MUCH, seconds=15.0)
    allowance.learn_speed_of(VGG16, 5e-6)
    with pytest.raises(TooCostlyError) as error:
        allowance.images_of(VGG16, 2048)
    assert "about 21 s, longer than the 15 s" in str(error.value)
    assert "INSPECT_DEVICE_TIMEOUT_SECONDS" in str(error.value)
    assert allowance.images_of(VGG16, 1024) == 1
