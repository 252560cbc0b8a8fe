"""ECA-MKDAD: anomaly detection by knowledge distillation with Efficient Channel Attention, in PyTorch.

Follows Zhou and Xing, "Novelty Detection Method Based on Knowledge Distillation and Efficient Channel Attention",
Computer Science 50(11A), 2023. Equation numbers in this package are that paper's. Nothing here knows of HTTP.
"""

from model.detector import Detection, Detector, detect
from model.networks.vgg import Student, Teacher

__all__ = ["Detection", "Detector", "Student", "Teacher", "detect"]
