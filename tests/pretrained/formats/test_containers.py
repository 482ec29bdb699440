from typing import NamedTuple

import pytest

from movq_jax.pretrained.formats.containers import choose
from movq_jax.pretrained.refusals import Refused


class Fake(NamedTuple):
    """A tensor, as far as choosing goes."""

    origin: str
    shape: tuple[int, ...] = (2,)


def is_fake(value):
    return isinstance(value, Fake)


def chosen(tree, kind="torch", averaged=True):
    """Return (part, name -> origin, skipped)."""
    part, tensors, skipped = choose(tree, is_fake, kind, averaged)
    return part, {name: tensor.origin for name, tensor in tensors.items()}, skipped


A, B = Fake("a"), Fake("b")


def test_a_flat_state_dict():
    assert chosen({"x.a": A, "x.b": B}) == ("", {"x.a": "a", "x.b": "b"}, {})
    _, names, skipped = chosen({"x": A, "epoch": 3, "more": {}, 4: B})
    assert names == {"x": "a"}
    assert skipped == {
        "epoch": "no tensor: int",
        "more": "no tensor: dict",
        "4": "a tensor beside the weights",
    }


@pytest.mark.parametrize("key", ["state_dict", "model", "generator", "my_weights"])
def test_containers(key):
    tree = {key: {"x": A}, "optimizer": {"state": {0: {"m": B}}}, "step": B}
    if key == "my_weights":
        del tree["step"]  # beside tensors a dict of another name is not chosen
    part, names, skipped = chosen(tree)
    assert (part, names) == (key, {"x": "a"})
    assert skipped["optimizer"] == "tensors that are not these weights"
    assert list(skipped) == [k for k in tree if k != key]


def test_containers_in_containers():
    tree = {"model": {"state_dict": {"module.x": A}}, "args": 1}
    part, names, skipped = chosen(tree)
    assert (part, names) == ("model.state_dict", {"x": "a"})
    assert skipped == {"args": "no tensor: int"}


def test_several_sets_of_unknown_names():
    with pytest.raises(Refused, match=r"several sets of tensors \(one, two\)"):
        chosen({"one": {"x": A}, "two": {"x": B}, "discriminator": {"x": B}})


def test_averages_under_a_key_of_their_own():
    tree = {"model": {"x": A, "buffer": A}, "ema": {"module.x": B}, "optimizer": {}}
    part, names, skipped = chosen(tree)
    assert part == "model, averaged weights of ema"
    assert names == {"x": "b", "buffer": "a"}
    assert skipped == {
        "optimizer": "no tensor: dict",
        "model": "1 tensors, whose averages in 'ema' are taken",
    }
    part, names, skipped = chosen(tree, averaged=False)
    assert (part, names) == ("model", {"x": "a", "buffer": "a"})
    assert skipped["ema"] == "tensors that are not these weights"


@pytest.mark.parametrize("other", [{"y": B}, {"x": Fake("b", (3,))}])
def test_averages_of_something_else(other):
    part, names, skipped = chosen({"model": {"x": A}, "ema": other})
    assert (part, names) == ("model", {"x": "a"})
    assert "averages of something else" in skipped["ema"]


def test_averages_alone():
    assert chosen({"ema": {"x": A}, "step": 3})[:2] == ("ema", {"x": "a"})
    tree = {"ema": {"x": A}}
    assert chosen(tree, averaged=False)[:2] == ("ema", {"x": "a"})


def test_a_lightning_file_with_averages():
    state = {
        "encoder.conv.weight": A,
        "loss.disc.weight": A,
        "model_ema.decay": A,
        "model_ema.num_updates": A,
        "model_ema.encoderconvweight": B,
        "model_ema.lossdiscweight": B,
    }
    part, names, skipped = chosen({"state_dict": state})
    assert part == "state_dict, averaged weights"
    assert names == {"encoder.conv.weight": "b"}
    assert set(skipped) == {"model_ema.*", "loss.*"}
    assert chosen(state)[0] == "averaged weights"
    assert chosen(state, averaged=False)[:2] == ("", {"encoder.conv.weight": "a"})


def test_a_diffusion_model():
    state = {"model.a": B, "model.b": B, "first_stage_model.x": A, "cond.y": B}
    part, names, skipped = chosen({"state_dict": state})
    assert (part, names) == ("state_dict, first_stage_model", {"x": "a"})
    assert skipped == {
        "model.*": "2 tensors beside first_stage_model.*",
        "cond.*": "1 tensor beside first_stage_model.*",
    }


def test_dicts_that_hold_themselves():
    loop = {}
    loop["loop"] = loop
    wide = {"x": loop}
    for _ in range(60):
        wide = dict.fromkeys("abcdefgh", wide)
    assert chosen({"x": A, "loop": loop, "wide": wide})[1] == {"x": "a"}
    with pytest.raises(Refused, match="no weights, only loop"):
        chosen(loop)


def test_no_tensors():
    with pytest.raises(Refused, match="no weights"):
        chosen({})
    with pytest.raises(Refused, match=r"only epoch \(no tensor: int\)"):
        chosen({"epoch": 3})


def test_flax():
    tree = {"encoder": {"Conv_0": {"kernel": A}}, "quantizer": {"codebook": B}}
    names = {"encoder/Conv_0/kernel": "a", "quantizer/codebook": "b"}
    assert chosen(tree, "msgpack") == ("", names, {})
    assert chosen({"params": tree}, "msgpack") == ("params", names, {})
    state = {"step": 3, "params": tree, "opt_state": {"0": {"mu": tree}}}
    part, found, skipped = chosen(state, "msgpack")
    assert (part, found) == ("params", names)
    assert skipped == {
        "step": "no tensor: int",
        "opt_state": "tensors that are not these weights",
    }
    wrapped = chosen({"target": {"params": tree}, "state": {}}, "msgpack")
    assert wrapped[:2] == ("target.params", names)


def test_averages_in_flax():
    tree = {"params": {"a": {"x": A}}, "ema_params": {"a": {"x": B}}}
    assert chosen(tree, "msgpack")[:2] == ("ema_params", {"a/x": "b"})
    assert chosen(tree, "msgpack", averaged=False)[:2] == ("params", {"a/x": "a"})
    # A codebook's statistics are no averages of the weights.
    tree = {"params": {"a": {"x": A}}, "ema": {"codebook": {"sums": B}}}
    assert chosen(tree, "msgpack")[:2] == ("params", {"a/x": "a"})


def test_names_that_are_the_same_once_joined():
    with pytest.raises(Refused, match="two arrays that are called 'a/b'"):
        chosen({"a": {"b": A}, "a/b": B}, "msgpack")
