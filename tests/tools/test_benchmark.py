import contextlib
import json

import jax
import numpy as np
import pytest
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.errors import UserError
from movq_jax.measuring import memory, rates
from movq_jax.tools import benchmark, command


@pytest.fixture
def data_dir(tmp_path):
    """A data dir with the dataset `small`."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(10):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.jpg")
    listing = folder.find(str(tmp_path / "pictures"))
    write_dataset(listing, name="small", data_dir=tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    """Small matrix products, and what the tests compiled the last time."""
    monkeypatch.setattr(memory, "without_compilation_cache", contextlib.nullcontext)
    monkeypatch.setattr(rates, "_SIZES", {"cpu": (16, 32)})
    monkeypatch.setattr(rates, "_WARM_UP", rates.Limits(seconds=9, steps=2))
    monkeypatch.setattr(rates, "LEAST_SECONDS", 0.02)


FAST = ["--seconds=0.05", "--rounds=2", "--batch-size=4", "--num-threads=2"]
MODEL = [
    "--config=vqgan_imagenet:tiny",
    "--config.model.width=8",
    "--config.model.multipliers=(1,2)",
    "--config.model.attention_factors=()",
    "--config.loss.discriminator.layers=1",
    "--config.loss.adversarial.adaptive=False",
    "--image-size=16",
    "--batch-size=16",
    "--rounds=2",
    "--seconds=0.02",
    "--steps=2",
]


def measured(tmp_path, *flags):
    """Return the record of a benchmark that must succeed."""
    where = tmp_path / "record.json"
    assert command.run(benchmark.main, [*flags, f"--json={where}"]) == 0
    return json.loads(where.read_text())


def test_the_input_alone(data_dir, tmp_path, capsys):
    flags = ["--part=input", "--dataset=small", f"--data-dir={data_dir}", *FAST]
    record = measured(tmp_path, *flags, "--image-size=24")
    out = capsys.readouterr().out
    assert "pipeline" in out and "% of the pipeline's work" in out
    for part in ("decode", "pipeline"):
        rates = record["input"][part]
        assert len(rates["wall"]) == len(rates["core"]) == 2
        assert min(rates["wall"]) > 0
    assert record["input"]["config"]["batch_size"] == record["batch_size"] == 4
    assert record["input"]["config"]["image_size"] == 24
    assert record["input"]["config"]["train"]["resize"] == {"name": "none"}


def test_the_input_by_numbers_of_workers(data_dir, tmp_path):
    flags = ["--part=input", "--dataset=small", f"--data-dir={data_dir}", *FAST]
    record = measured(tmp_path, *flags, "--image-size=24", "--num-workers=0,1")
    variants = record["input"]["variants"]
    assert [variant["num_workers"] for variant in variants] == [0, 1]


def test_the_input_of_a_config(data_dir, tmp_path):
    flags = ["--part=input", "--dataset=small", f"--data-dir={data_dir}", *FAST]
    record = measured(tmp_path, "--config=vqgan_imagenet:tiny", *flags)
    config = record["input"]["config"]
    assert config["decode_once"] and config["image_size"] == 32
    assert config["dataset"] == "small" and config["split_train"] == "train"


def test_a_model(tmp_path, capsys):
    record = measured(tmp_path, *MODEL)
    out = capsys.readouterr().out
    assert "vqgan_imagenet:tiny on 8 x cpu, float32, batch 16, 16x16" in out
    assert record["device"]["count"] == 8 and record["device"]["kind"] == "cpu"
    assert record["jax"] == jax.__version__ and record["dtype"] == "float32"
    assert record["config"] == "vqgan_imagenet:tiny" and record["batch_size"] == 16
    assert "--config.model.width=8" in record["overrides"]
    assert record["phase"] == "adversarial" and record["breakdown"] == {}
    assert list(record["parts"]) == ["train (adversarial)", "encode", "decode"]
    product = record["matrix_product"]
    for part in record["parts"].values():
        seconds = part["step_seconds"]
        assert seconds["steps"] == 4 and len(seconds["rounds"]) == 2
        assert part["period"] == 1 and seconds["of_period"] == seconds["median"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["p99"]
        rate = 16 / seconds["median"]
        assert part["images_per_second"] == pytest.approx(rate)
        assert part["images_per_second_per_device"] == pytest.approx(rate / 8)
        flops = part["flops_per_image"] * rate / 8
        assert part["flops_per_second"] == pytest.approx(flops)
        share = flops / product["flops_per_second"]
        assert part["share_of_matrix_product"] == pytest.approx(share)
        assert part["share_of_datasheet"] is None and part["compile_seconds"] > 0
        assert part["peak_bytes"] > 0 and part["peak_bytes_source"] == "compiler"
    assert "memory: of a device, as told by the compiler" in out


def test_products_do_not_end_after_some_steps(tmp_path):
    record = measured(tmp_path, *MODEL, "--part=decode")
    assert record["parts"]["decode"]["step_seconds"]["steps"] == 4
    product = record["matrix_product"]["step_seconds"]
    assert product["steps"] * product["mean"] > 0.03  # 2 x 0.02 s, one step less
    assert record["phase"] is None


def test_lazy_r1(tmp_path, capsys):
    r1 = ["--config.loss.adversarial.r1.weight=1.0", "--steps=1", "--part=train"]
    r1 += ["--config.loss.adversarial.r1.every=3", "--phase=warmup"]
    r1 += ["--config.loss.adversarial.warmup=1", "--config.loss.adversarial.start=1"]
    record = measured(tmp_path, *MODEL, *r1, "--config.loss.discriminator.norm=group")
    part = record["parts"]["train (warmup)"]
    assert part["period"] == 3 and part["step_seconds"]["steps"] == 6
    rate = 16 / part["step_seconds"]["of_period"]
    assert part["images_per_second"] == pytest.approx(rate)
    assert "R1 is in one step of 3; images/s" in capsys.readouterr().out


def test_a_share_that_cannot_be_is_remarked():
    shares = {"encode": 1.3, "decode": 0.9, "train": 1.01}
    parts = {
        name: {"period": 1, "share_of_matrix_product": share}
        for name, share in shares.items()
    }
    (remark,) = benchmark._remarks(parts)
    assert remark.startswith("more than 100% of the matrix product: encode, train. ")
    assert not list(benchmark._remarks({"decode": parts["decode"]}))


def test_the_parts_of_a_step_and_another_phase(tmp_path):
    flags = ["--part=train", "--phase=reconstruction", "--breakdown", "--steps=1"]
    flags += ["--config.loss.adversarial.start=4", "--dtype=bfloat16"]
    record = measured(tmp_path, *MODEL, *flags)
    assert list(record["parts"]) == ["train (reconstruction)"]
    names = ["encoder", "quantizer", "decoder", "discriminator"]
    assert list(record["breakdown"]) == [
        name + more for name in names for more in ("", ", forward and backward")
    ]
    assert record["dtype"] == record["matrix_product"]["dtype"] == "bfloat16"


def test_training_on_real_data(data_dir, tmp_path, capsys):
    flags = ["--part=train,input", "--data=real", "--dataset=small", "--seconds=0.05"]
    flags += [f"--data-dir={data_dir}", "--config.loss.adversarial.name=none"]
    record = measured(tmp_path, *MODEL, *flags)
    part = record["parts"]["train (reconstruction)"]
    assert 0 < part["data_wait_share"] < 1
    assert "waited for real data" in capsys.readouterr().out
    assert record["data"] == "real" and record["input"]["config"]["batch_size"] == 16


def test_too_little_memory(monkeypatch, capsys):
    def compile_program(program):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(memory, "compile_program", compile_program)
    assert command.run(benchmark.main, [*MODEL, "--part=encode"]) == 2
    assert "give a smaller --batch-size" in capsys.readouterr().err


def test_what_is_compiled_is_not_read_from_a_cache(monkeypatch):
    monkeypatch.undo()
    seen = []

    def compile_program(program):
        seen.append(jax.config.jax_enable_compilation_cache)
        raise UserError("that is enough")

    monkeypatch.setattr(memory, "compile_program", compile_program)
    assert command.run(benchmark.main, [*MODEL, "--part=encode"]) == 2
    assert seen == [False] and jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=smal"], "did you mean 'small'"),
        (["--dataset=small", "--crop=centre"], "did you mean 'center'"),
        (["--dataset=small", "--split=test"], "no split 'test'"),
        (["--dataset=small", "--batch-size=0"], "'0' is not a positive whole number"),
        (["--dataset=small", "--seconds=-1"], "'-1' is not a number above zero"),
        (["--dataset=small", "--part=decoder"], "no part 'decoder'; did you mean 'de"),
        (["--dataset=small", "--part=,"], "no part ','"),
        (["--dataset=small", "--part=train"], "--part=train needs a config"),
        (["--dataset=small", "--breakdown"], "--breakdown is of a model"),
        (["--dataset=small", "--config.model.width=8"], "width=8 needs --config"),
        ([], "--dataset for the input pipeline alone"),
        (["--dataset=small", "--num-workers=1,x"], "'1,x' is not like 0,1,2,4"),
    ],
)
def test_wrong_flags_of_the_input(data_dir, capsys, flags, message):
    fast = ["--seconds=0.05", "--rounds=2"]
    flags = [*fast, *flags, f"--data-dir={data_dir}"]
    assert command.run(benchmark.main, flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--image-size=31"], "data.image_size is 31, but must be a multiple of 2"),
        (["--config.train.accumulation=3"], "accumulation is 3, which does not"),
        (["--config.train.accumulation=0", "--part=encode"], "accumulation is 0; 1 is"),
        (["--config.train.num_steps=0"], "num_steps is 0, but must be"),
        (["--batch-size=12"], "is 12, but must be a positive multiple of"),
        (["--config.train.accumulation=4"], "multiple of devices x config.train.acc"),
        (["--phase=adversary"], "no phase 'adversary'; did you mean 'adversarial'?"),
        (["--phase=warmup"], "no phase 'warmup'"),
        (["--dtype=float16"], "'float16'"),
        (["--part=encode", "--data=real"], "add train to --part"),
        (["--part=train", "--data=real", "--data-dir=nowhere"], "nowhere"),
    ],
)
def test_wrong_flags_of_a_model(capsys, flags, message):
    assert command.run(benchmark.main, [*MODEL, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


PRIOR = ["--config=maskgit_photos:tiny", "--rounds=2", "--seconds=0.02", "--steps=2"]


def test_a_prior(tmp_path, capsys):
    record = measured(tmp_path, *PRIOR)
    assert list(record["parts"]) == ["train", "sample"]
    assert record["parts"]["sample"]["images_per_second"] > 0
    assert "of product" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--part=encode"], "the config is of a prior, which has train, sample and"),
        (["--breakdown"], "--breakdown is of tokenizers"),
        (["--data=real"], "--data=real is of tokenizers"),
        (["--phase=warmup"], "no phase 'warmup'"),
    ],
)
def test_what_a_prior_has_not(flags, message, capsys):
    assert command.run(benchmark.main, [*PRIOR, *flags]) == 2
    assert message in capsys.readouterr().err
    wrong = [*MODEL, "--part=sample"]
    assert command.run(benchmark.main, wrong) == 2
    assert "the config is of a tokenizer" in capsys.readouterr().err
