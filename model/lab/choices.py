"""The names that the experiments know; each has its meaning where it is carried out."""

from collections.abc import Mapping
from typing import Any

DATASETS = ("mvtec-ad", "mnist", "fashion-mnist", "cifar-10", "svhn", "stl-10", "other")
"""See `model.lab.reproduction.sets.SETS`."""

DEFAULT = "eca-mkdad"
VARIANTS = (
    DEFAULT, "mkdad", "eca-all", "eca-after-relu", "se", "scse", "dy-relu", "no-attention", "full-width", "no-omega",
    "lambda-on-squared", "learning-rate-0.1",
)  # fmt: skip
"""See `model.lab.variants.VARIANTS`."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "patchcore": {"class": "Patchcore"},
    "patchcore-teacher": {"class": "Patchcore", "pools": (3, 4)},
    "stfpm": {"class": "Stfpm"},
    "stfpm-teacher": {"class": "Stfpm", "pools": (2, 3, 4)},
    "efficientad": {"class": "EfficientAd", "batch_size": 1},
    "reverse-distillation": {"class": "ReverseDistillation"},
    "ganomaly": {"class": "Ganomaly"},
}
"""By the name that the command line knows: the class in ``anomalib.models``, the batch size that it insists on, and,
where it uses this project's teacher in place of its own network, the pools whose maps it sees: those with the strides
of the layers that its authors use."""

DEFAULT_KIND = "plates"
KINDS = (DEFAULT_KIND, "bolts")
"""Generated categories, see `model.lab.synthetic.KINDS`: an even surface, and an object in any pose on a ground."""
