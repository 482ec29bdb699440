"""The distance of sets that a run measures of itself."""

import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.frechet import FeatureStatistics
from movq_jax.training import loop
from movq_jax.training.set_distance import make_set_distance


def options(**changes):
    return {"name": "squeezenet_fd", "num_examples": 4, "weights": ""} | changes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "fdd"}, "config.eval.distance.name is 'fdd'.*did you mean 'fid'"),
        ({"num_examples": 1}, "distance.num_examples is 1, but a covariance needs"),
        ({"num_examples": "many"}, "distance.num_examples"),
        ({"side": 3}, "has no field 'side'"),
        ({"name": "auto", "weights": "x.npz"}, "weights is 'x.npz', but of which"),
    ],
)
def test_what_is_no_distance(changes, message):
    with pytest.raises(UserError, match=message):
        make_set_distance(options(**changes))


def test_auto_is_what_lies_in_the_folder_of_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(tmp_path))
    assert make_set_distance(options(name="auto")) is None
    (tmp_path / "squeezenet_v1.0.npz").touch()
    assert make_set_distance(options(name="auto")).name == "squeezenet_fd"
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()
    assert make_set_distance(options(name="auto")).name == "fid"
    assert make_set_distance(options(name="none")) is None


def test_weights_are_met_before_the_first_step(tiny_config, photos_dir, tmp_path):
    config = tiny_config(
        f"data.data_dir={photos_dir}",
        "eval.distance.name=squeezenet_fd",
        "eval.distance.weights=nowhere.npz",
    )
    with pytest.raises(UserError, match="config.eval.distance: .*nowhere.npz"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_of_no_images(random_squeezenet):
    distance = make_set_distance(options(weights=str(random_squeezenet)))
    distance.begin()
    distance.add(*np.zeros((2, 0, 8, 8, 3), np.uint8))
    assert distance.compute() == {}


PROCESS = """
    import sys, jax, numpy as np
    number, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    from movq_jax.evaluation.metrics.frechet import FeatureStatistics
    from movq_jax.training.set_distance import gathered
    rows = np.random.default_rng(number).normal(3, 1e-7, (5 + number, 4))
    statistics = FeatureStatistics(4)
    statistics.update(rows)
    merged = gathered(statistics)
    np.savez(f"{folder}/{number}.npz", merged=merged.to_array(), rows=rows)
"""


def test_statistics_of_two_processes_are_merged_exactly(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    program = textwrap.dedent(PROCESS)
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(n), port, str(tmp_path)])
        for n in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    first, second = (np.load(tmp_path / f"{n}.npz") for n in range(2))
    np.testing.assert_array_equal(first["merged"], second["merged"])
    merged = FeatureStatistics.from_array(first["merged"], 4)
    rows = np.concatenate([first["rows"], second["rows"]])
    assert merged.count == 11
    np.testing.assert_allclose(merged.covariance, np.cov(rows.T), rtol=1e-6)
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-15)
