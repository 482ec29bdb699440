import jax
import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.errors import UserError
from movq_jax.measuring import memory, prior_programs, prior_sizes, programs
from movq_jax.measuring.programs import Shapes
from movq_jax.training import prior_task, sharding


def tiny(spec="maskgit_photos:tiny", *overrides):
    """A settled config; nothing is trained for it."""
    return prior_programs.settle(load_config(spec, list(overrides)))


def shapes(config, batch_size=8, devices=1):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    return Shapes(batch_size, config.data.image_size, mesh)


def test_tokens_come_from_the_tokenizers_config():
    config = tiny()
    assert config.tokens.grid == (8, 8) and config.tokens.factor == 4
    assert len(config.tokens.codebook_sizes) == 4
    assert tiny("maskgit_photos:tiny", "model.num_classes=7").model.num_classes == 7


def test_classes_that_only_the_data_know(tmp_path):
    overrides = ["model.num_classes=-1", f"data.data_dir={tmp_path}"]
    with pytest.raises(UserError, match="or give --config.model.num_classes=10"):
        tiny("maskgit_photos:tiny", *overrides)
    with pytest.raises(UserError, match="label_smoothing is 1, which leaves nothing"):
        tiny("maskgit_photos:tiny", "loss.label_smoothing=1.0")


@pytest.mark.parametrize("spec", ["maskgit_photos:tiny", "ar_photos:tiny"])
def test_work_of_the_parts(spec):
    config = tiny(spec)
    found = prior_sizes.describe_prior(config)
    flops, masked = found["flops"], spec.startswith("maskgit")
    # Backwards twice as much as forwards; the embedding has no gradient to what it is.
    assert 2.5 < flops["train_step"] / flops["forward"] <= 3.05
    passes = 3 if masked else 1  # a cache makes all steps one pass
    assert flops["sample"] == pytest.approx(passes * flops["forward"], rel=0.15)
    assert found["sample_calls"] == (3 if masked else 64)
    counts = found["parameters"]
    assert counts["prior"] == sum(v for k, v in counts.items() if k != "prior")
    assert min(counts.values()) > 0
    assert found["state_bytes"]["parameters"] == 4 * counts["prior"]


def test_the_work_of_a_batch_is_that_of_its_images():
    config = tiny()
    one, eight = shapes(config, 1), shapes(config, 8)
    for make in (prior_programs.forward, prior_programs.sample):
        works = [programs.flops_per_image(make(config, s), s) for s in (one, eight)]
        assert works[0] == works[1]


def test_the_state_is_traced_once_for_all_programs(monkeypatch):
    traced, init = [], prior_task.init_state

    def counted(config):
        traced.append(config)
        return init(config)

    monkeypatch.setattr(prior_task, "init_state", counted)
    config = tiny("maskgit_photos:tiny", "seed=41")
    made = prior_programs.programs(config, prior_programs.PARTS, shapes(config, 1))
    prior_programs.forward(config, shapes(config, 8))
    prior_sizes.describe_prior(config)
    assert len(made) == 2 and len(traced) == 1
    # A config may be changed: what counts is what it says.
    wider = config.copy_and_resolve_references()
    wider.model.width = 2 * config.model.width
    found, other = map(prior_programs.abstract_state, (config, wider))
    assert len(traced) == 2
    assert found.gen_params["norm"] != other.gen_params["norm"]


def test_programs_run_on_random_arguments():
    config = tiny()
    for program in prior_programs.programs(
        config, prior_programs.PARTS, shapes(config, 8, devices=2)
    ):
        results = memory.compile_program(program).call(
            *programs.random_arguments(program)
        )
        assert all(
            np.isfinite(leaf).all() for leaf in map(_floats, jax.tree.leaves(results))
        )


def _floats(array):
    return np.asarray(array, np.float64)


def test_the_largest_batch():
    config = tiny()
    mesh, said = sharding.make_mesh(jax.devices()[:1]), []
    found = memory.largest_batch(config, 60_000_000, mesh, said.append)
    assert found["phase"] == "prior" and found["batch_size"] >= 1 and said
    with pytest.raises(
        UserError, match="try config.model.dtype=bfloat16, config.train"
    ):
        memory.largest_batch(config, 1000, mesh, said.append)
