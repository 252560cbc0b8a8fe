"""How much memory images take on their way through a pair, known before anything runs, and how many go at once."""

from model.networks.vgg import Plan, student_plan

VALUES_KEPT = 2.75
"""Values in memory at the peak for each value that a convolution gives, with a gradient. Measured on a CPU: 1.9 to 2.7,
for the compact teacher and VGG16 at 128 to 1024 pixels; without a gradient 0.4 to 0.7."""

FULL_BATCH_SIDE = 256
"""A batch has no more pixels than its largest number of images has at this side, so that one pass over large images
takes no more memory and hardly more time than one over small ones."""


def images_at_once(most: int, side: int) -> int:
    """How many images a batch may have.

    Args:
        most: the limit for small images, at least 1.
        side: of the images, pixels.

    Returns:
        1 to `most`; where it is less than `most`, a power of two, because CUDA graphs are padded to those.
    """
    images = most * FULL_BATCH_SIDE**2 // side**2
    return most if images >= most else 1 << max(images, 1).bit_length() - 1


def bytes_per_image(teacher: Plan, side: int, bytes_per_value: int = 4) -> int:
    """Peak memory of one image beyond the networks' weights, with its anomaly map; a batch takes so much per image.

    Args:
        teacher: the teacher's plan, which decides the student's.
        side: of the square that the networks see, pixels.
        bytes_per_value: of the networks' precision.

    Returns:
        Bytes. It grows with the square of the side.
    """
    values = _values_per_pixel(teacher) + _values_per_pixel(student_plan(teacher))
    return round(VALUES_KEPT * bytes_per_value * values * side**2)


def _values_per_pixel(plan: Plan) -> float:
    """What all convolutions of a network give, per pixel of its input."""
    values, pixels = 0.0, 1.0
    for step in plan:
        if step == "M":
            pixels /= 4
        else:
            values += step * pixels
    return values
