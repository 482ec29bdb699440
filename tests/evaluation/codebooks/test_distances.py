import numpy as np
import pytest

from movq_jax.evaluation.codebooks import distances as codebook_distances
from movq_jax.evaluation.codebooks.distances import neighbour_distances


def test_neighbours(monkeypatch):
    codes = np.array([[0, 0], [3, 4], [3, 4], [0, 1]], np.float32)
    assert neighbour_distances(codes).tolist() == [1, 0, 0, 1]
    monkeypatch.setattr(codebook_distances, "DISTANCE_BYTES", 1)  # a code at a time
    assert neighbour_distances(codes).tolist() == [1, 0, 0, 1]
    assert neighbour_distances(codes, max_rows=2).tolist() == [1, 1]


def test_close_neighbours_far_from_the_origin():
    codes = np.array([[1e4, 0], [1e4, 1e-2], [0, 0]], np.float32)
    found = neighbour_distances(codes)
    assert found[:2] == pytest.approx(1e-2) and found[2] == pytest.approx(1e4)
