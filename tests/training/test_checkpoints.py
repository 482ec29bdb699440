import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.training import sharding
from movq_jax.training.checkpoints import Checkpoints, abstract_state
from movq_jax.training.state import TrainState

EVERYWHERE = sharding.replicated(sharding.make_mesh())


def state(step):
    return TrainState(
        step=jnp.int32(step),
        skipped_steps=jnp.int32(0),
        skipped_in_row=jnp.int32(0),
        gen_params={"kernel": jnp.arange(6.0).reshape(2, 3) + step},
        gen_opt=(),
        ema_params={"kernel": jnp.zeros((2, 3))},
        disc_params={},
        disc_opt=(),
        variables={"gen": {}, "disc": {}},
    )


ABSTRACT = abstract_state(jax.eval_shape(lambda: state(0)), EVERYWHERE)


def opened(workdir, keep=2):
    return Checkpoints(workdir, score=lambda values: values["val/psnr"], keep=keep)


def save(workdir, scores):
    with opened(workdir) as checkpoints:
        for step, score in scores.items():
            metrics = None if score is None else {"val/psnr": score}
            checkpoints.save(jax.device_put(state(step), EVERYWHERE), metrics)
        checkpoints.wait()


def kept(workdir):
    return sorted(
        int(p.name) for p in (workdir / "checkpoints").iterdir() if p.is_dir()
    )


def test_the_newest_comes_back_to_the_bit(tmp_path):
    save(tmp_path, {1: None, 2: None})
    with opened(tmp_path) as checkpoints:
        restored = checkpoints.restore_latest(ABSTRACT)
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    save(tmp_path, {1: 20.0, 2: 25.0, 3: 22.0, 4: 21.0, 5: None})
    assert kept(tmp_path) == [2, 4, 5]
    with opened(tmp_path) as checkpoints:
        assert int(checkpoints.restore_latest(ABSTRACT).step) == 5


def test_there_may_be_none(tmp_path):
    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(ABSTRACT) is None


def damage(workdir, step):
    for path in (workdir / "checkpoints" / str(step)).rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    save(tmp_path, {1: None, 2: None})
    damage(tmp_path, 2)
    with opened(tmp_path) as checkpoints:
        assert int(checkpoints.restore_latest(ABSTRACT).step) == 1
        checkpoints.save(jax.device_put(state(2), EVERYWHERE))
    with opened(tmp_path) as checkpoints:
        assert int(checkpoints.restore_latest(ABSTRACT).step) == 2


def test_the_best_is_remembered_on_resuming(tmp_path):
    save(tmp_path, {1: 25.0, 2: 22.0, 3: None})
    save(tmp_path, {4: 21.0, 5: None, 6: None})
    assert kept(tmp_path) == [1, 5, 6]


def test_without_an_evaluation_there_is_nothing_to_warn_of(tmp_path, caplog):
    save(tmp_path, {1: None, 2: 20.0, 3: None, 4: None})
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert kept(tmp_path) == [2, 3, 4]


def test_without_any_evaluation_none_is_the_best(tmp_path):
    save(tmp_path, {1: None, 2: None, 3: None})
    assert kept(tmp_path) == [2, 3]


def test_nothing_but_damage_is_an_error_each_time(tmp_path):
    save(tmp_path, {1: None, 2: None})
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    for _ in range(2):
        with opened(tmp_path) as checkpoints:
            with pytest.raises(UserError, match=r"none of the checkpoints \[2, 1\]"):
                checkpoints.restore_latest(ABSTRACT)
    assert kept(tmp_path) == [1, 2]


def test_damage_set_aside_by_hand_does_not_begin_anew(tmp_path):
    (tmp_path / "damaged_checkpoint_7").mkdir()
    with opened(tmp_path) as checkpoints:
        with pytest.raises(UserError, match=r"none of the checkpoints \[7\]"):
            checkpoints.restore_latest(ABSTRACT)


def test_a_step_damaged_twice_is_set_aside_twice(tmp_path):
    save(tmp_path, {1: None, 2: None})
    for _ in range(2):
        damage(tmp_path, 2)
        with opened(tmp_path) as checkpoints:
            assert int(checkpoints.restore_latest(ABSTRACT).step) == 1
            checkpoints.save(jax.device_put(state(2), EVERYWHERE))
    names = sorted(path.name for path in tmp_path.glob("damaged*"))
    assert names == ["damaged_checkpoint_2", "damaged_checkpoint_2_again"]


@pytest.mark.parametrize("params", [{"kernel": jnp.zeros(3)}, {"b": jnp.zeros((2, 3))}])
def test_another_state_is_no_damage(tmp_path, params):
    save(tmp_path, {1: None})
    other = abstract_state(state(0).replace(gen_params=params), EVERYWHERE)
    with opened(tmp_path) as checkpoints:
        with pytest.raises(UserError, match="checkpoint 1 .* holds another state"):
            checkpoints.restore_latest(other)
    assert kept(tmp_path) == [1]
