"""Deep leakage from gradients, measured: the attacks DLG, iDLG and WDLG, and the study of them.

The flow goes one way: images -> network -> shared gradient -> label rule -> matching loss and optimiser
-> reconstruction -> evaluation -> figures. Each module knows only those before it.
"""

from importlib.metadata import version

__version__ = version("wdlg")
