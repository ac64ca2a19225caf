"""The networks under attack: the LeNet of DLG and iDLG, and any torch module; weights are held apart."""

from wdlg.networks.base import Network, Parameters, require_fitting
from wdlg.networks.lenet import ACTIVATIONS, LeNet
from wdlg.networks.module import ModuleNetwork

__all__ = ["ACTIVATIONS", "LeNet", "ModuleNetwork", "Network", "Parameters", "require_fitting"]
