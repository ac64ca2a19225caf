"""The limits of a study's cases are those of each image in its own network."""

import pytest

from wdlg.limits import limits
from wdlg.sharing.defences import Noise
from wdlg.study import Design, draw
from wdlg.study.bounds import limits_of


def test_each_case_has_the_limits_of_its_image_in_its_network(digits):
    cases = draw(digits, Design(networks=2, images=2, seed=1, defence=Noise(0.1)))
    found = limits_of(cases)
    assert len(found) == 4
    for row, one in enumerate(found):
        parameters = cases.parameters.select(cases.network_index[[row]])
        expected = limits(cases.network, parameters, cases.truth[row], int(cases.labels[row]))
        assert one.constant == pytest.approx(expected.constant)
    assert len({one.constant for one in found}) == 4
