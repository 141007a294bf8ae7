"""A table as a Parquet or CSV file that is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .commit import replacing

if TYPE_CHECKING:
    import pandas as pd


def save_table(path: Path, table: pd.DataFrame) -> None:
    """Write a data frame without its index, by the path's ending: ``.parquet`` or ``.csv``."""
    with replacing(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        else:
            table.to_csv(beside, index=False)
