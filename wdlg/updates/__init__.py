"""What a participant sends: the gradient of its private image, and how far two of them are apart."""

from wdlg.updates.gradient import Gradient, from_tensors, require_alike_gradients

__all__ = ["Gradient", "from_tensors", "require_alike_gradients"]
