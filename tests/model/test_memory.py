"""The estimate of memory per image holds against what a process really takes."""

import subprocess
import sys

import pytest

from model.memory import bytes_per_image
from model.networks.vgg import VGG16, Plan, vgg16_plan

COMPACT = vgg16_plan((24, 48, 96, 192, 192))
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from model.choices import MapForm
from model.detector import Detector
from model.networks.vgg import Student, Teacher, student_plan, vgg16_plan

torch.set_num_threads(1)
widths, side = eval(sys.argv[1]), int(sys.argv[2])
teacher = Teacher(vgg16_plan(widths))
detector = Detector(teacher, Student(student_plan(teacher.plan)).eval())
detector(np.zeros((1, 32, 32, 3), np.uint8), maps=MapForm.GRADIENT)

def kilobytes(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)

Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = kilobytes("VmRSS")
detector(np.zeros((1, side, side, 3), np.uint8), maps=MapForm.GRADIENT)
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")
@pytest.mark.parametrize(("widths", "side"), [((24, 48, 96, 192, 192), 512), ((64, 128, 256, 512, 512), 256)])
def test_no_image_takes_more_than_the_estimate_and_not_far_less(widths: tuple[int, int, int, int, int], side: int):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(widths), str(side)], capture_output=True, text=True, check=True
    )
    estimate = bytes_per_image(vgg16_plan(widths), side)
    assert 0.5 * estimate < int(done.stdout) < estimate


@pytest.mark.parametrize("plan", [COMPACT, VGG16])
def test_the_estimate_grows_with_the_square_of_the_side_and_halves_with_the_precision(plan: Plan):
    assert bytes_per_image(plan, 256) == pytest.approx(4 * bytes_per_image(plan, 128))
    assert bytes_per_image(plan, 128, 2) == pytest.approx(bytes_per_image(plan, 128) / 2)


def test_two_images_of_2048_pixels_would_need_tens_of_gigabytes_with_vgg16():
    assert 2 * bytes_per_image(VGG16, 2048) > 20e9
