import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.networks import Networks


def test_a_page_instead_of_weights(tmp_path):
    path = tmp_path / "squeezenet_v1.0.npz"
    path.write_text("<!DOCTYPE html>")
    networks = Networks(squeezenet=path)
    for load in (
        lambda: networks.squeezenet,
        lambda: networks.perceptual("squeezenet"),
    ):
        with pytest.raises(UserError, match="is not an npz file; .*https://github.com"):
            load()
