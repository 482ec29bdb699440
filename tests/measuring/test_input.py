import numpy as np
import pytest
from PIL import Image

from movq_jax.config import schema
from movq_jax.data.builders import folder
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.measuring.input import input_table, measure_input


@pytest.fixture(scope="module")
def data_config(tmp_path_factory):
    """The `data` section of a set of six pictures."""
    source, data_dir = (tmp_path_factory.mktemp(name) for name in ("files", "data"))
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(source / f"{number}.jpg")
    listing = folder.find(str(source), validation_fraction=0.0)
    write_dataset(listing, name="six", data_dir=data_dir)
    section = schema.tokenizer_config().data.to_dict()
    return section | {"dataset": "six", "data_dir": str(data_dir), "image_size": 16}


def test_workers_and_reduced_decoding_are_varied(data_config):
    record = measure_input(
        data_config,
        batch_size=4,
        seconds=0.05,
        rounds=1,
        workers=[0, 1],
        reduced_decoding=True,
    )
    found = [(v["num_workers"], v["reduced_decoding"]) for v in record["variants"]]
    assert found == [(0, False), (1, False), (0, True), (1, True)]
    for variant in record["variants"]:
        assert len(variant["wall"]) == len(variant["core"]) == 1
        assert min(variant["wall"] + variant["core"]) > 0
    first = record["variants"][0]
    assert record["pipeline"] == {key: first[key] for key in ("wall", "core")}
    lines = input_table(record).splitlines()
    labels = [line[:40].strip() for line in lines[1:-1]]
    assert [label.rstrip(" 0123456789,.") for label in labels] == [
        "decode, one core",
        "pipeline",
        "pipeline, 1 worker",
        "pipeline, reduced decoding",
        "pipeline, 1 worker, reduced decoding",
    ]
    assert lines[-1].startswith("decoding is ")


def test_the_configured_one_is_measured_once(data_config):
    record = measure_input(data_config, batch_size=4, seconds=0.01, rounds=1)
    assert len(record["variants"]) == 1
    assert record["config"]["batch_size"] == 4
