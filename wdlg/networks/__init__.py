"""The networks under attack: LeNet, other registered ones, and any torch module; weights are held apart."""

from wdlg.networks.activations import ACTIVATIONS
from wdlg.networks.base import Network, Parameters, mean_of_gradients, require_fitting
from wdlg.networks.convnet import ConvNet
from wdlg.networks.functional import TorchNetwork
from wdlg.networks.initial import DISTRIBUTIONS
from wdlg.networks.lenet import LeNet
from wdlg.networks.module import ModuleNetwork
from wdlg.networks.registry import NETWORKS, Architecture, architecture
from wdlg.networks.resnet import ResNet

__all__ = [
    "ACTIVATIONS",
    "DISTRIBUTIONS",
    "NETWORKS",
    "Architecture",
    "ConvNet",
    "LeNet",
    "ModuleNetwork",
    "Network",
    "Parameters",
    "ResNet",
    "TorchNetwork",
    "architecture",
    "mean_of_gradients",
    "require_fitting",
]
