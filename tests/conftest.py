"""Settings that every test runs under."""

import torch
from hypothesis import settings

# One torch thread per test process: two multi-threaded processes on two cores get in each other's way.
torch.set_num_threads(1)

# A property's truth does not depend on how long a busy machine takes to find it.
settings.register_profile("wdlg", deadline=None)
settings.load_profile("wdlg")
