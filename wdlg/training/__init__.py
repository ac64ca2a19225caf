"""Training a network together with others under a defence: how accurate it gets, and what privacy it has."""

from wdlg.training.accounting import PrivacyLoss, privacy_loss
from wdlg.training.rounds import SecureSum, Training, accuracy, train

__all__ = ["PrivacyLoss", "SecureSum", "Training", "accuracy", "privacy_loss", "train"]
