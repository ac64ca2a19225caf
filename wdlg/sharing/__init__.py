"""How a participant shares what it learnt of one or several images: in one step or many, and defended."""

from wdlg.sharing.federated import FedAvg, FedSGD, Sharing

__all__ = ["FedAvg", "FedSGD", "Sharing"]
