"""Settings and samples that every test shares."""

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import sync_playwright

from wdlg import data
from wdlg.book.pdf import find_browser

# One torch thread per test process: two multi-threaded processes on two cores get in each other's way.
torch.set_num_threads(1)

# A property's truth does not depend on how long a busy machine takes to find it. Everyone gets the same
# examples, so that a failure can be repeated; `pytest --hypothesis-profile=search` looks at new ones.
settings.register_profile("wdlg", deadline=None, derandomize=True, database=None)
settings.register_profile("search", deadline=None)
settings.register_profile("few", settings.get_profile("wdlg"), max_examples=10)  # for `make mutants`
settings.load_profile("wdlg")


@pytest.fixture(scope="session")
def digits():
    """The embedded digits, the smallest real images."""
    return data.load("digits")


@pytest.fixture(scope="session")
def faces():
    """The embedded faces."""
    return data.load("faces")


@pytest.fixture(scope="module")
def browser():
    """A Chromium, for tests that are skipped where there is none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()
