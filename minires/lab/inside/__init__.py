"""Pictures of what a trained network sees: Grad-CAM, feature maps, filters."""

from .cam import GradCam, Scores, grad_cam
from .features import feature_maps, first_filters, stages

__all__ = ["GradCam", "Scores", "feature_maps", "first_filters", "grad_cam", "stages"]
