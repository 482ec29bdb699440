import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import movq_jax
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import read_bundle, write_bundle


@pytest.fixture
def workdir(tiny_bundle, tmp_path):
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "run"))


def write(folder, value=0.0, **changes):
    """Write a small bundle whose one parameter is `value`; return its fingerprint."""
    parts = {
        "kind": "tokenizer",
        "params": {"a": {"kernel": np.full((2, 3), value, np.float32)}},
        "model": {"width": 8, "multipliers": (1, 2)},
        "protocol": {"step": 3},
    }
    return write_bundle(folder, **parts | changes)


def edit(workdir, **changes):
    """Change what config.json says; None removes a key."""
    path = workdir / "model" / "config.json"
    record = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in record.items() if value is not None}
    path.write_text(json.dumps(kept))


def refused(path):
    """Return the message with which a bundle is refused, one sentence on one line."""
    with pytest.raises(UserError) as error:
        read_bundle(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_bundle_comes_back_as_it_was(tmp_path):
    params = {
        "encoder": {"conv": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}},
        "codebook": np.full((2, 2), -0.0, np.float32),
    }
    stated = write(tmp_path / "run" / "model", params=params)
    bundle = read_bundle(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, bundle.params, params)
    assert np.all(np.signbit(bundle.params["codebook"]))
    assert bundle.kind == "tokenizer" and bundle.protocol == {"step": 3}
    assert bundle.model == {"width": 8, "multipliers": [1, 2]}
    assert bundle.fingerprint == stated and len(stated) == 64
    again = write_bundle(
        tmp_path / "copy",
        kind="tokenizer",
        params=bundle.params,
        model=bundle.model,
        protocol={},
    )
    assert again == stated


def test_the_files_are_what_the_docstring_says(tiny_bundle):
    folder = tiny_bundle / "model"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    record = json.loads((folder / "config.json").read_text())
    assert set(record) == {"format_version", "kind", "fingerprint", "model", "protocol"}
    assert record["format_version"] == 2
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    assert weights["encoder.conv_in.kernel"].shape == (3, 3, 3, 8)
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


def test_the_workdir_and_the_folder_itself_are_the_same(tiny_bundle):
    bundles = [read_bundle(tiny_bundle), read_bundle(str(tiny_bundle / "model"))]
    assert bundles[0].fingerprint == bundles[1].fingerprint


def test_a_home_is_expanded(tiny_bundle, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_bundle.parent))
    assert read_bundle(f"~/{tiny_bundle.name}").kind == "tokenizer"


def test_a_newer_one_takes_the_place_of_an_older(tmp_path):
    first = write(tmp_path / "model", 1.0)
    second = write(tmp_path / "model", 2.0)
    assert first != second == read_bundle(tmp_path).fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class Killed(BaseException):
    """Stands for the end of the process."""


STEPS = ["mkdir", "save_file", "write_text", "rename", "rename twice", "rmtree"]


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_is_killed_leaves_a_whole_bundle(tmp_path, monkeypatch, step):
    """Before, or in, any of its steps: the old one or the new one can be read."""
    old = write(tmp_path / "model", 1.0)
    name, _, twice = step.partition(" ")
    calls = []

    def killed(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 1 + bool(twice):
            raise Killed
        return original(self, *args, **kwargs)

    kind = safetensors.numpy if name == "save_file" else type(epath.Path(tmp_path))
    original = getattr(kind, name)
    with monkeypatch.context() as patch:
        patch.setattr(kind, name, killed)
        with pytest.raises(Killed):
            write(tmp_path / "model", 2.0)
    for path in (tmp_path, tmp_path / "model"):
        kept = read_bundle(path)
        assert kept.fingerprint == old or kept.params["a"]["kernel"][0, 0] == 2
    newest = write(tmp_path / "model", 3.0)
    assert read_bundle(tmp_path).fingerprint == newest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_scalars_and_views_are_kept(tmp_path):
    params = {"a": np.float32(3).reshape(()), "b": np.eye(3, dtype=np.float32)[:, ::2]}
    write_bundle(tmp_path / "m", kind="tokenizer", params=params, model={}, protocol={})
    kept = read_bundle(tmp_path / "m").params
    for name, array in params.items():
        np.testing.assert_array_equal(kept[name], array, strict=True)


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "model").symlink_to("real")
    for value in (1.0, 2.0):
        written = write(tmp_path / "model", value)
    assert (tmp_path / "model").is_symlink()
    assert read_bundle(tmp_path / "real").fingerprint == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "real"]


def test_ctrl_c_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(arrays, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.numpy, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "model", 1.0)
    assert not list(tmp_path.iterdir())


def test_a_killed_writers_old_bundle_outlives_the_next_failure(tmp_path, monkeypatch):
    old = write(tmp_path / "model", 1.0)
    (tmp_path / "model").rename(tmp_path / ".model.old")  # and then it was killed

    def full(arrays, path):
        raise safetensors.SafetensorError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(UserError, match="no space left"):
            write(tmp_path / "model", 2.0)
    assert read_bundle(tmp_path).fingerprint == old


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    left = tmp_path / ".model.new"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    stated = write(tmp_path / "model")
    assert read_bundle(tmp_path).fingerprint == stated
    assert not left.exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model bundle .*/file/model"):
        write(tmp_path / "file" / "model")


def test_nothing_there(tmp_path, workdir):
    assert "there is no model at" in refused(tmp_path / "elsewhere")
    message = refused(tmp_path)
    assert "model/model.safetensors and model/config.json" in message
    (workdir / "model" / "config.json").unlink()
    assert "there is no model in" in refused(workdir)


def test_missing_weights(workdir):
    (workdir / "model" / "model.safetensors").unlink()
    assert "there is no model in" in refused(workdir)


def test_every_byte_of_the_weights_counts(workdir):
    path = workdir / "model" / "model.safetensors"
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert "is damaged or was changed" in refused(workdir / "model")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_weights_that_were_cut_off(workdir, size):
    path = workdir / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be read" in refused(path.parent)


def test_an_edited_config(workdir, tiny_movq):
    tiny_movq["quantizer"]["beta"] = 0.5
    edit(workdir, model=tiny_movq)
    assert "do not give the fingerprint that config.json states" in refused(workdir)


def test_the_protocol_may_be_edited(workdir, tiny_bundle):
    edit(workdir, protocol={"weights": "random", "note": "a first try"})
    assert read_bundle(workdir).protocol["note"] == "a first try"


def test_a_newer_format(workdir):
    edit(workdir, format_version=3)
    message = refused(workdir)
    assert "has format version 3, this program reads 1 to 2" in message


def test_the_first_format_had_the_codes_elsewhere(tmp_path):
    codes = np.arange(8, dtype=np.float32).reshape(4, 2)
    write_bundle(
        tmp_path / "model",
        kind="tokenizer",
        params={"quantize": {"codebook": codes}},
        model={},
        protocol={},
    )
    edit(tmp_path, format_version=1)
    params = read_bundle(tmp_path).params
    np.testing.assert_array_equal(params["quantize"]["codebook"]["rows"], codes)


@pytest.mark.parametrize("key", ["format_version", "kind", "fingerprint", "model"])
def test_a_config_that_lacks_something(workdir, key):
    edit(workdir, **{key: None})
    assert f"is no bundle's config: it lacks {key}" in refused(workdir)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\xff\xfe"])
def test_a_config_that_is_something_else(workdir, text):
    path = workdir / "model" / "config.json"
    path.write_text(text, encoding="latin-1")
    message = refused(workdir)
    assert "not readable JSON" in message or "is no bundle's config" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", []),
        ("model", "null"),
        ("protocol", [1]),
        ("kind", 3),
        ("fingerprint", 3),
        ("fingerprint", {}),
    ],
)
def test_a_config_whose_parts_are_something_else(workdir, key, value):
    edit(workdir, **{key: value})
    assert f"is no bundle's config: its {key!r} is {value!r}" in refused(workdir)


def test_a_model_that_is_null(workdir):
    path = workdir / "model" / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"model": None}))
    assert "is no bundle's config: its 'model' is None" in refused(workdir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizer": None}, "config.model.quantizer is None; choose by"),
        ({"quantizer": [1, 2]}, r"config.model.quantizer is \(1, 2\); choose by"),
        ({"decoder_norm": "spatial"}, "config.model.decoder_norm is 'spatial'"),
        ({"multipliers": 3}, "config.model.multipliers is 3"),
        ({"width": "8"}, "config.model.width is '8'; give a whole number"),
        ({"remat_levels": [0]}, "config.model has no field 'remat_levels'"),
    ],
)
def test_a_model_that_cannot_be_built(tmp_path, tiny_movq, changes, message):
    """The fingerprint is right: the one who wrote it was wrong."""
    write(tmp_path / "model", model=tiny_movq | changes)
    with pytest.raises(UserError, match=f"model in .* cannot be used: {message}"):
        movq_jax.load(tmp_path)


def test_numbers_that_json_does_not_know_are_null(tmp_path):
    protocol = {
        "metrics": {"psnr": float("inf"), "loss": float("nan"), "step": 3},
        "more": [np.float32("nan"), np.float64(0.5), np.array([1.0, -np.inf])],
    }
    write(tmp_path / "model", protocol=protocol)

    def unknown(name):
        pytest.fail(f"{name} is no JSON")

    text = (tmp_path / "model" / "config.json").read_text()
    expected = {
        "metrics": {"psnr": None, "loss": None, "step": 3},
        "more": [None, 0.5, [1.0, None]],
    }
    assert json.loads(text, parse_constant=unknown)["protocol"] == expected
    # As the first release wrote it.
    (tmp_path / "model" / "config.json").write_text(text.replace(": 3", ": NaN"))
    assert read_bundle(tmp_path).protocol["metrics"]["step"] is None


def test_a_model_has_no_such_numbers(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "model", model={"dropout": float("nan")})
    assert not list(tmp_path.iterdir())


def test_another_kind_is_refused(workdir):
    edit(workdir, kind="fish")
    with pytest.raises(UserError, match=r"is a fish, neither a tokenizer nor a prior"):
        movq_jax.load(workdir)
    edit(workdir, kind="prior")
    with pytest.raises(UserError, match=r"the bundle .* lacks prior, tokens, sample"):
        movq_jax.load(workdir)


def test_weights_that_do_not_fit_the_config(tmp_path, tiny_bundle, tiny_movq):
    """The fingerprint is right: the one who wrote it was wrong."""
    params = read_bundle(tiny_bundle).params
    write(tmp_path / "model", params=params, model=tiny_movq | {"width": 16})
    with pytest.raises(UserError, match="weights do not fit the model"):
        movq_jax.load(tmp_path)
    del params["quantize"]
    write(tmp_path / "model", params=params, model=tiny_movq)
    with pytest.raises(UserError, match="weights do not fit the model"):
        movq_jax.load(tmp_path)
