"""How images came to be, step after step: what a prior's `trace` returns."""

from typing import NamedTuple

import numpy as np


class Steps(NamedTuple):
    """The T steps of B images.

    Attributes:
      ids: int32 [B, T, h, w, M]; where not known, what the step drew.
      known: bool [B, T, h, w, M], what is known after the step.
      confidence: float32 [B, T, h, w], mean over channels of log p of what was drawn.
        Where a position is known, that of the step which kept it; 0 where it was given.
        NaN where nothing was drawn yet.
    """

    ids: np.ndarray
    known: np.ndarray
    confidence: np.ndarray


def masked_steps(steps: Steps, given: np.ndarray) -> Steps:
    """Steps of masked decoding, as `decode_masked` traces them.

    What the network says of indices that it sees, for which it was not trained, gives
    way to what it said when they were drawn.

    Args:
      steps: [B, T, h, w, ...].
      given: bool [B, h, w, M], what was known before the first step.
    """
    confidence = steps.confidence.copy()
    known, before = given.all(axis=-1), np.zeros_like(confidence[:, 0])
    for k in range(confidence.shape[1]):
        confidence[:, k] = np.where(known, before, confidence[:, k])
        known, before = steps.known[:, k].all(axis=-1), confidence[:, k]
    return steps._replace(confidence=confidence)


def row_steps(ids: np.ndarray, log_p: np.ndarray, given: np.ndarray) -> Steps:
    """Steps of an autoregressive prior: each draws a row.

    Args:
      ids: int32 [B, h, w, M], finished.
      log_p: float32 [B, h, w, M], of each index.
      given: bool [B, h, w, M], what was known before the first step.
    """
    batch, h, w, channels = ids.shape
    drawn = np.tri(h, dtype=bool)[None, :, :, None, None]  # [1, T, h, 1, 1]
    known = np.broadcast_to(given[:, None] | drawn, (batch, h, h, w, channels))
    sure = np.where(given.all(axis=-1), 0.0, log_p.mean(axis=-1)).astype(np.float32)
    confidence = np.where(known.all(axis=-1), sure[:, None], np.float32(np.nan))
    return Steps(np.broadcast_to(ids[:, None], known.shape), known, confidence)
