"""Stores of the small study."""

import pytest
from small_study import small_study

from wdlg.study.runner import run
from wdlg.study.store import Store


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with all records of the small study."""
    store = Store(tmp_path_factory.mktemp("filled"))
    assert run(small_study(), store, processes=1) == []
    return store


@pytest.fixture
def copy(filled, tmp_path):
    """The same, to spoil."""
    for path in filled.folder.rglob("*.parquet"):
        target = tmp_path / "store" / path.relative_to(filled.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return Store(tmp_path / "store")
