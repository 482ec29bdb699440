import subprocess
import sys

import flax.serialization
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.checkpoint_files import open_checkpoint

KINDS = ("safetensors", "zip", "legacy", "msgpack")
TENSORS = {
    "encoder.conv_in.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "b.half": np.float16([1.5, -2, 65504]),
    "a.bfloat16": np.asarray([0.1, 3, np.inf], ml_dtypes.bfloat16),
    "double": np.float64([0.1, 1e300]),
    "count": np.asarray(7, np.int64),
    "mask": np.asarray([True, False]),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def save(tmp_path, save_torch):
    """A function that writes tensors in a format, and returns the path."""

    def save(tensors, kind):
        path = tmp_path / "weights.file"
        if kind == "safetensors":
            path.write_bytes(safetensors.numpy.save(tensors))
        elif kind == "msgpack":
            path.write_bytes(flax.serialization.msgpack_serialize(tensors))
        else:
            save_torch(path, tensors, legacy=kind == "legacy")
        return path

    return save


def refused(path):
    """Return the message with which a file is refused, one sentence on one line."""
    with pytest.raises(UserError) as error:
        open_checkpoint(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_dtypes_and_numbers(save, kind):
    path = save(TENSORS, kind)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.path == path
        assert checkpoint.kind == {"zip": "torch", "legacy": "torch"}.get(kind, kind)
        assert checkpoint.part == "" and checkpoint.skipped == {}
        assert checkpoint.shapes == {n: a.shape for n, a in TENSORS.items()}
        assert checkpoint.dtypes == {n: a.dtype.name for n, a in TENSORS.items()}
        read = {name: checkpoint.read(name) for name in reversed(TENSORS)}
    for name, array in TENSORS.items():
        kept = array.dtype.kind in "ib"
        assert read[name].dtype == (array.dtype if kept else np.float32)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(read[name], array.astype(read[name].dtype))


@pytest.mark.parametrize("kind", ["zip", "legacy"])  # the others' writers sort
def test_names_are_in_the_order_of_the_file(save, kind):
    with open_checkpoint(save(TENSORS, kind)) as checkpoint:
        assert list(checkpoint.shapes) == list(TENSORS)


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_are_key_errors(save, kind):
    with open_checkpoint(save(TENSORS, kind)) as checkpoint:
        with pytest.raises(KeyError):
            checkpoint.read("other")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_lightning_file(save, kind, opcodes):
    """Objects of other packages, also as keys of dicts, are passed over."""
    config = opcodes(
        b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81}X\x08\x00\x00\x00_contentNsb"
    )
    callback = opcodes(b"cpytorch_lightning.callbacks\nModelCheckpoint\n")
    called = opcodes(b"cnumpy.core.multiarray\nscalar\n(I1\ntR(I5\nI6\ne")
    tree = {
        "epoch": 3,
        "state_dict": TENSORS | {"loss.logvar": np.float32([0])},
        "callbacks": {callback: {"best": called}},
        "optimizer_states": [{"state": {0: {"exp_avg": np.float32([1, 2])}}}],
        "hyper_parameters": config,
    }
    with open_checkpoint(save(tree, kind)) as checkpoint:
        assert checkpoint.part == "state_dict"
        assert list(checkpoint.shapes) == list(TENSORS)
        np.testing.assert_array_equal(checkpoint.read("b.half"), TENSORS["b.half"])
        assert checkpoint.skipped == {
            "epoch": "no tensor: int",
            "callbacks": "no tensor: dict",
            "optimizer_states": "no tensor: list",
            "hyper_parameters": "no tensor: omegaconf.dictconfig.DictConfig",
            "loss.*": "1 tensor of the training's loss",
        }


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    "asked",
    [
        b"cposix\nsystem\n(S'touch pwned'\ntR",
        b'cbuiltins\neval\n(S\'open("pwned", "w")\'\ntR',
        b"csubprocess\nPopen\n(S'touch pwned'\ntR",
        b"(S'touch pwned'\nios\nsystem\n",  # INST
        b"\x8c\x08builtins\x8c\x04exec\x93",  # STACK_GLOBAL
        b"\x8c\x07pathlib\x8c\x09os.system\x93",  # through what another imports
    ],
)
def test_dangerous_files_are_refused_by_name(
    save, kind, asked, opcodes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = refused(save(TENSORS | {"x": opcodes(asked)}, kind))
    assert "do not use this file" in message
    name = next(
        name
        for name in ("system", "eval", "Popen", "exec", "os.system")
        if name.encode() in asked
    )
    assert name in message
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_other_code_is_not_run(save, kind, opcodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('pwned', 'w')\ndef run(*_): pass\n")
    calls = opcodes(b"cevil\nrun\n(S'x'\ntR}S'a'\nI1\nsb")
    with open_checkpoint(save({"model": TENSORS, "x": calls}, kind)) as checkpoint:
        assert checkpoint.skipped == {"x": "no tensor: evil.run"}
    assert "evil" not in sys.modules and not (tmp_path / "pwned").exists()


def test_tensors_made_otherwise_are_refused_by_name(save, opcodes):
    odd = opcodes(b"ctorch._utils\n_rebuild_qtensor\n)R")
    message = refused(save(TENSORS | {"x.weight": odd}, "zip"))
    assert "'x.weight'" in message and "torch._utils._rebuild_qtensor" in message
    kind = b"(S'storage'\nctorch\nComplexFloatStorage\nS'0'\nS'cpu'\nI2\ntQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + kind + b"I0\n(I2\nt(I1\nttR"
    message = refused(save(TENSORS | {"x.weight": opcodes(rebuilt)}, "zip"))
    assert "torch.ComplexFloatStorage" in message
    with open_checkpoint(
        save({"state_dict": TENSORS, "beside": {"a": opcodes(rebuilt)}}, "zip")
    ) as checkpoint:
        assert list(checkpoint.shapes) == list(TENSORS)


def test_a_whole_pickled_module(save, opcodes):
    module = opcodes(b"ctaming.models\nVQModel\n)\x81")
    assert "holds a taming.models.VQModel" in refused(save(module, "zip"))
    message = refused(save({"model": module}, "zip"))
    assert "no weights" in message and "taming.models.VQModel" in message


def test_tensors_that_swell_are_refused(save, opcodes):
    kind = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1\ntQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + kind
    many = opcodes(rebuilt + b"I0\n(I1000000000\nt(I0\nttR")
    assert "repeat 1" in refused(save({"x": many}, "zip"))
    out = opcodes(rebuilt + b"I0\n(I2\nt(I1\nttR")
    assert "x reaches out" in refused(save({"x": out}, "zip"))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tensors_that_share_a_storage(save, kind, opcodes):
    """A part is its own memory; the last storage that was read is read once."""
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    kind_ = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI12\ntQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + kind_
    part = opcodes(rebuilt + b"I1\n(I2\nI3\nt(I4\nI1\nttR")
    turned = opcodes(rebuilt + b"I0\n(I4\nI3\nt(I1\nI4\nttR")
    path = save({"whole": whole, "part": part, "turned": turned}, kind)
    with open_checkpoint(path) as checkpoint:
        part, turned = checkpoint.read("part"), checkpoint.read("turned")
    np.testing.assert_array_equal(part, whole[:2, 1:])
    np.testing.assert_array_equal(turned, whole.T)
    assert part.flags.owndata and part.flags.writeable


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_refused(save, kind):
    path = save({"a": np.float32([1, 2]), "b": np.arange(24.0)}, kind)
    whole = path.read_bytes()
    for size in range(0, len(whole), 5):
        path.write_bytes(whole[:size])
        refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_escapes_as_another_error(save, kind):
    path = save({"a": np.arange(6.0).reshape(2, 3), "b": {"c": np.ones(3)}}, "msgpack")
    if kind != "msgpack":
        path = save({"a": np.arange(6.0).reshape(2, 3), "b": np.ones(3)}, kind)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            with open_checkpoint(path) as checkpoint:
                for name in checkpoint.shapes:
                    array = checkpoint.read(name)
                    assert array.size < 100
                    assert array.shape == checkpoint.shapes[name]
        except UserError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["refused"] > 30


def test_a_file_that_is_cut_off_while_it_is_open(save):
    path = save({"a": np.ones(100_000, np.float32)}, "safetensors")
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(UserError, match="cut off"):
            checkpoint.read("a")


def test_files_without_tensors(save):
    for kind in ("safetensors", "zip", "legacy"):
        assert "holds no weights" in refused(save({}, kind))
    assert "epoch (no tensor: int)" in refused(save({"epoch": 3}, "zip"))
    assert "only epoch" in refused(save({"epoch": 3}, "msgpack"))


MEASURE = """
import os, resource, sys
from movq_jax.pretrained.formats.checkpoint_files import open_checkpoint

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

for path in sys.argv[1:]:
    if os.fork():
        if os.wait()[1]:
            sys.exit("failed")
        continue
    before = peak()
    with open_checkpoint(path) as checkpoint:
        arrays = {name: checkpoint.read(name) for name in checkpoint.shapes}
    size = sum(array.nbytes for array in arrays.values())
    print((peak() - before) / size, path, flush=True)
    os._exit(0)
"""


def test_memory(save, tmp_path):
    """The model, and one of its tensors at most beside it; nothing of the training."""
    paths = []
    for kind in KINDS:
        for dtype in (np.float32, np.float16):
            # Unequal ones: equal memory is not given back, but used for the next.
            tensors = {f"layer{i}": np.ones((256 + i, 2048), dtype) for i in range(16)}
            if kind in ("zip", "legacy"):
                state = np.ones((2048, 4096), np.float32)
                tensors = {"state_dict": tensors, "optimizer_states": [state]}
            path = tmp_path / f"{kind}.{np.dtype(dtype).name}"
            paths.append(str(save(tensors, kind).rename(path)))
    command = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(paths)
    for line in done.stdout.splitlines():
        assert float(line.split()[0]) < 1.25, done.stdout


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_of_a_training(torch, tmp_path, zipped):
    import argparse
    import collections
    import datetime
    import functools
    import pathlib

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    training = {
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": argparse.Namespace(a=torch.ones(2), path=pathlib.Path()),
        "callbacks": {torch.nn.ReLU: collections.defaultdict(dict, a={"b": {1, 2}})},
        "random": (np.random.default_rng(0), torch.get_rng_state(), torch.float16),
        "numbers": [np.float64(3), np.arange(3), torch.Size([2]), torch.device("cpu")],
        "time": datetime.timedelta(1),
        "partial": functools.partial(torch.nn.Linear, 3),
        "complex": torch.ones(2, dtype=torch.complex64) if zipped else None,
    }
    path = tmp_path / "last.ckpt"
    torch.save(training, path, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.part == "state_dict"
        assert list(checkpoint.skipped) == [k for k in training if k != "state_dict"]
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor.numpy())
