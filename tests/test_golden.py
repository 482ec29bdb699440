"""What earlier versions wrote can be read, and gives what it gave."""

import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import movq_jax
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.training import loop, stages
from movq_jax.training.checkpoints import Checkpoints
from movq_jax.training.workdir import read_config

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.fixture(scope="module", params=VERSIONS)
def runs(request, tmp_path_factory):
    """The folder with the runs of one version."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / request.param / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_models_give_what_they_gave(runs):
    expected = np.load(runs / "expected.npz")
    tok = movq_jax.load(runs / "tokenizer")
    ids = tok.encode(expected["images"])
    # Of codes that are nearly as near another machine may take the other one.
    assert np.mean(ids == expected["ids"]) > 0.99
    decoded = tok.decode(expected["ids"], dtype="float32")
    np.testing.assert_allclose(decoded, expected["decoded"], atol=1e-4)
    prior = movq_jax.load(runs / "prior")
    assert prior.tokenizer.fingerprint == tok.fingerprint
    nll = prior.nll(expected["ids"], samples=4, seed=1).total
    np.testing.assert_allclose(nll, expected["nll"], rtol=1e-4)


@pytest.mark.parametrize("name", ["tokenizer", "prior"])
def test_training_states_are_read(runs, name):
    config = read_config(runs / name)
    task = stages.task_of(config)
    trainer = loop.Trainer(config, runs / name, task=task)
    with Checkpoints(runs / name, score=task.score, read_only=True) as checkpoints:
        state = checkpoints.restore_latest(trainer.abstract)
    assert int(state.step) == 2
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(state.ema_params),
        read_bundle(runs / name).params,
    )
