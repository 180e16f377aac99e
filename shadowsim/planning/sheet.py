"""Frames that a notebook shows as a card: what `size` and `plan` return."""

from __future__ import annotations

import pandas as pd


class Sheet(pd.DataFrame):
    """A DataFrame with a card of its own (cards.py); whatever is made of it is an ordinary DataFrame."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        from shadowsim import card

        return card(self)
