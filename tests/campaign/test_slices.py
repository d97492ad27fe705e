"""A small slice of every row of the campaign: the whole thing is `make campaign`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.row import Row, all_rows


@pytest.mark.timeout(600)  # some rows train three times, on whatever machine this is
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in all_rows()])
def test_a_slice_of(row: Row, tmp_path: Path) -> None:
    result = row.run(row.slice, tmp_path, lambda done: None)
    assert result.trials >= row.slice, "a row that makes no fault proves nothing"
    assert result.failures == []


def test_rows_have_places_of_their_own() -> None:
    rows = all_rows()
    assert len({row.number for row in rows}) == len(rows)
    assert all(row.fault and row.must and 0 < row.slice <= row.full for row in rows)
