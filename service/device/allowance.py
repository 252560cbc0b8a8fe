"""What one batch may cost the device, and the refusal of images that cost more even one at a time."""

from model.errors import ExpectedError
from model.memory import bytes_per_image, images_at_once
from model.networks.vgg import Plan

MEMORY_SHARE = 0.5
"""Of the memory that is free at the start; uploads, pictures and students need some as well."""

TIME_SHARE = 0.25
"""Of the device's time limit, for a batch on an idle machine; a busy one takes several times as long, and the images of
other categories wait meanwhile."""


class TooCostlyError(ExpectedError):
    """An image takes more of the device than a batch may; the message has both numbers."""


class Allowance:
    """What one batch may cost, and how many images of a size that is.

    Args:
        images: most of them.
        memory_bytes: most memory in addition to the networks, bytes.
        seconds: longest time on an idle machine.
        bytes_per_value: of the networks' precision.
    """

    def __init__(self, images: int, memory_bytes: int, seconds: float, bytes_per_value: int = 4) -> None:
        self.images = images
        self.memory_bytes = memory_bytes
        self.seconds = seconds
        self._bytes_per_value = bytes_per_value
        self._seconds_per_pixel: dict[Plan, float] = {}
        self._images_of: dict[tuple[Plan, int], int] = {}

    def knows_speed_of(self, teacher: Plan) -> bool:
        """Whether `learn_speed_of` was called for this teacher."""
        return teacher in self._seconds_per_pixel

    def learn_speed_of(self, teacher: Plan, seconds_per_pixel: float) -> None:
        """Takes note of how long this device takes for a pixel with its map, whatever the image size."""
        self._seconds_per_pixel[teacher] = seconds_per_pixel
        self._images_of.clear()

    def memory_of(self, images: int, teacher: Plan, side: int) -> int:
        """Upper estimate of the bytes that a batch takes."""
        return images * bytes_per_image(teacher, side, self._bytes_per_value)

    def images_of(self, teacher: Plan, side: int) -> int:
        """How many images of this side may go through a pair at once, at least 1.

        Raises:
            TooCostlyError: if one alone takes too much memory or time.
        """
        images = self._images_of.get((teacher, side))
        if images is None:
            images = self._images_of[teacher, side] = self._count(teacher, side)
        return images

    def _count(self, teacher: Plan, side: int) -> int:
        size = self.memory_of(1, teacher, side)
        if size > self.memory_bytes:
            raise TooCostlyError(
                f"an image of {side}x{side} pixels would take about {gigabytes(size)} of memory, more than the "
                f"{gigabytes(self.memory_bytes)} that a batch may take; train with a smaller --image-size, or allow "
                "more with INSPECT_DEVICE_MEMORY_BYTES"
            )
        images = min(images_at_once(self.images, side), self.memory_bytes // size)
        if seconds := self._seconds_per_pixel.get(teacher, 0.0) * side**2:
            if seconds > self.seconds:
                raise TooCostlyError(
                    f"an image of {side}x{side} pixels would keep the device busy for about {seconds:.2g} s, longer "
                    f"than the {self.seconds:.2g} s that a batch may take on an idle machine; train with a smaller "
                    "--image-size, or allow more with INSPECT_DEVICE_TIMEOUT_SECONDS"
                )
            images = int(min(images, self.seconds / seconds))
        # Fewer than a full batch are a power of two, because CUDA graphs are padded to those.
        return images if images == self.images else 1 << images.bit_length() - 1


def gigabytes(size: int) -> str:
    """For a message, in GB."""
    return f"{size / 1e9:.2g} GB" if size < 10e9 else f"{size / 1e9:.0f} GB"
