"""A key/value cache with a fixed number of rows: finished rows leave, waiting ones enter, nothing is copied per token.

All active rows end at the same column; a row's tokens are the columns from its own start to that end (left padding). Positions are
rotated into the keys before they are stored, so a row may enter at any column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass
class Window:
    """Which part of the buffers is in use: rows [0, rows), columns [start, end)."""

    rows: int = 0
    start: int = 0
    end: int = 0


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, [slots, heads, columns, dim], allocated once."""

    is_sliding = False

    def __init__(self, slots: int, columns: int, window: Window) -> None:
        super().__init__()
        self.slots, self.columns, self.window = slots, columns, window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros: a masked column must be finite, for 0 * NaN is NaN."""
        _, heads, _, _ = key_states.shape
        self.keys = key_states.new_zeros(self.slots, heads, self.columns, key_states.shape[-1])
        self.values = value_states.new_zeros(self.slots, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one token per active row and return views of everything visible."""
        window = self.window
        self.keys[: window.rows, :, window.end] = key_states[:, :, 0]
        self.values[: window.rows, :, window.end] = value_states[:, :, 0]
        visible = slice(window.start, window.end + 1)
        return self.keys[: window.rows, :, visible], self.values[: window.rows, :, visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Visible columns with the next `query_length`, and their offset."""
        return self.window.end + query_length - self.window.start, 0

    def get_seq_length(self) -> int:
        """Visible columns."""
        return self.window.end - self.window.start

    def get_max_length(self) -> int:
        """Columns there are."""
        return self.columns


class SlotCache(Cache):  # type: ignore[misc]
    """The layers of a model and the window they share."""

    def __init__(self, num_layers: int, slots: int, columns: int) -> None:
        self.window, self.columns = Window(), columns
        super().__init__(layers=[SlotLayer(slots, columns, self.window) for _ in range(num_layers)])

    def enter(self, row: int, prefill: Any, index: int, length: int) -> int:
        """Copy the last `length` columns of row `index` of a left-padded prefill cache so that they end at the window's end; return the start."""
        end = self.window.end
        for layer, source in zip(self.layers, prefill.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(source.keys, source.values)
            layer.keys[row, :, end - length : end] = source.keys[index, :, -length:]
            layer.values[row, :, end - length : end] = source.values[index, :, -length:]
        return end - length

    def move(self, source: int, target: int) -> None:
        """Copy a row into a freed one."""
        visible = slice(self.window.start, self.window.end)
        for layer in self.layers:
            layer.keys[target, :, visible] = layer.keys[source, :, visible]
            layer.values[target, :, visible] = layer.values[source, :, visible]

    def shift(self) -> int:
        """Move the window to column 0 when the buffers are full; return by how many columns."""
        window = self.window
        if window.end < self.columns:
            return 0
        by, width = window.start, window.end - window.start
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[: window.rows, :, :width] = buffer[: window.rows, :, by : by + width].clone()
        window.start, window.end = 0, width
        return by
