import json

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation import reference_files
from movq_jax.evaluation.metrics.frechet import FeatureStatistics
from movq_jax.evaluation.reference_files import (
    has_statistics,
    read_statistics,
    write_statistics,
)

WIDTHS = {"pool": 4, "spatial": 3, "squeezenet": 2}
MU, SIGMA = np.arange(4.0), np.diag([1.0, 2.0, 3.0, 0.0])


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Networks with few features."""
    monkeypatch.setattr(reference_files, "WIDTHS", WIDTHS)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


def statistics(width, count=6, seed=0):
    found = FeatureStatistics(width)
    found.update(np.random.default_rng(seed).standard_normal((count, width)))
    return found


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "ours.npz"
    found = {key: statistics(width) for key, width in WIDTHS.items()}
    protocol = {"name": "default", "size": 8}
    write_statistics(path, found, protocol=protocol, networks={"inception": "ab"})
    assert has_statistics(path)
    read = read_statistics(path)
    assert set(read.moments) == set(WIDTHS)
    for key, moments in read.moments.items():
        np.testing.assert_array_equal(moments.mean, found[key].mean)
        np.testing.assert_array_equal(moments.covariance, found[key].covariance)
    assert (read.count, read.protocol) == (6, protocol)
    assert read.networks == {"inception": "ab"} and not read.has_images
    with np.load(path, allow_pickle=False) as archive:  # as pytorch-fid reads it
        np.testing.assert_array_equal(archive["mu"], found["pool"].mean)
        assert archive["sigma"].shape == (4, 4)


def test_the_fingerprint_is_that_of_the_numbers(save):
    first = read_statistics(save(mu=MU, sigma=SIGMA)).fingerprint
    again = read_statistics(save(mu=MU, sigma=SIGMA, more=MU)).fingerprint
    assert first == again != read_statistics(save(mu=MU + 1, sigma=SIGMA)).fingerprint


def test_files_of_others(save):
    read = read_statistics(save(mu=MU.astype(np.float32), sigma=SIGMA))
    assert read.protocol is None and read.count is None
    assert read.moments["pool"].mean.dtype == np.float64
    read = read_statistics(
        save(
            mu=MU,
            sigma=SIGMA,
            mu_s=np.zeros(3),
            sigma_s=np.eye(3),
            arr_0=np.zeros((2, 4, 4, 3), np.uint8),
        )
    )
    assert set(read.moments) == {"pool", "spatial"} and read.has_images
    assert not has_statistics(save(arr_0=np.zeros((2, 4, 4, 3), np.uint8)))


def header(**changes):
    fields = {"count": 6, "protocol": {}, "networks": {}} | changes
    return {"mu": MU, "sigma": SIGMA, "protocol": json.dumps(fields)}


def nan_in(array):
    return np.where(array == 1, np.nan, array)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU}, "has no 'sigma'"),
        ({"sigma": SIGMA}, "has no 'mu'"),
        ({"mu": MU[:3], "sigma": SIGMA}, r"must be \[4\] and \[4, 4\], not \[3\]"),
        ({"mu": MU, "sigma": SIGMA[:3]}, r"not \[4\] and \[3, 4\]"),
        ({"mu": nan_in(MU), "sigma": SIGMA}, "are not finite"),
        ({"mu": MU, "sigma": nan_in(SIGMA)}, "are not finite"),
        ({"mu": MU, "sigma": SIGMA + np.eye(4, k=1)}, "not symmetric"),
        ({"mu": MU, "sigma": -SIGMA}, "negative variance"),
        ({"mu": MU.astype(str), "sigma": SIGMA}, "must be numbers, not <U"),
        ({"mu": np.asarray([{}] * 4), "sigma": SIGMA}, "'mu' cannot be read: Object"),
        ({"mu": MU, "sigma": SIGMA, "protocol": MU}, "is not what `movq evaluate"),
        ({"mu": MU, "sigma": SIGMA, "protocol": "{}"}, "is not what `movq evaluate"),
        ({"mu": MU, "sigma": np.ones((4, 4)) - np.eye(4)}, "negative eigenvalues"),
        (header(count=1), "its count of images, 1, is not what"),
        (header(count=2.5), "its count of images, 2.5, is not what"),
        (header(count=True), "its count of images, True, is not what"),
        (header(count=None), "its count of images, None, is not what"),
        (header(networks=[]), "its networks, .*, is not what"),
        (header(networks={"inception": 3}), "its networks, .*, is not what"),
        ({"mu": MU, "sigma": SIGMA, "protocol": "[" * 10**5}, "is not what `movq"),
    ],
)
def test_what_is_no_statistics(save, arrays, message):
    with pytest.raises(UserError, match=message):
        read_statistics(save(**arrays))


def test_nothing_is_unpickled(tmp_path, save):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("unpickled").touch, ())

    path = save(mu=np.asarray([Bomb()], object), sigma=SIGMA)
    with pytest.raises(UserError, match="'mu' cannot be read"):
        read_statistics(path)
    assert not (tmp_path / "unpickled").exists()


def test_nothing_to_write(tmp_path):
    path = tmp_path / "ours.npz"
    with pytest.raises(UserError, match="no statistics to save: name a Fr.chet"):
        write_statistics(path, {}, protocol={}, networks={})
    with pytest.raises(UserError, match="at least 2 images"):
        one = {"pool": statistics(4, count=1)}
        write_statistics(path, one, protocol={}, networks={})
    assert not path.exists()
