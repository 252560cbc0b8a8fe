"""ECA-MKDAD: anomaly detection by knowledge distillation with Efficient Channel Attention, in PyTorch.

Follows Zhou and Xing, "Novelty Detection Method Based on Knowledge Distillation and Efficient Channel Attention",
Computer Science 50(11A), 2023. Equation numbers in this package are that paper's. Nothing here knows of HTTP.

The public names bring torch, which takes seconds, so they are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.detector import Detection, Detector, detect
    from model.networks.vgg import Student, Teacher

__all__ = ["Detection", "Detector", "Student", "Teacher", "detect"]


def __getattr__(name: str) -> Any:
    """Imports the public names when they are first used: reading images must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "model.networks.vgg" if name in ("Student", "Teacher") else "model.detector"
    return getattr(import_module(home), name)
