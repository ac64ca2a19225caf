"""What the cases of a study give away at all, before anybody attacks them."""

from __future__ import annotations

from wdlg.limits import Limits, limits
from wdlg.study.cases import Cases


def limits_of(cases: Cases) -> list[Limits]:
    """The limits of each private image in its network, see :func:`wdlg.limits.limits`.

    Args:
        cases: B of them; a defence of theirs is of no account.
    """
    return [
        limits(
            cases.network,
            cases.parameters.select(cases.network_index[place : place + 1]),
            cases.truth[place],
            int(cases.labels[place]),
        )
        for place in range(len(cases))
    ]
