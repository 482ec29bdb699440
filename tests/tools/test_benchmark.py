import json

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.builders.writing import write_dataset
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


FAST = ["--seconds=0.05", "--rounds=2", "--batch-size=4", "--num-threads=2"]


def test_rates(data_dir, tmp_path, capsys):
    where = tmp_path / "record.json"
    flags = ["--part=input", "--dataset=small", f"--data-dir={data_dir}", *FAST]
    flags += ["--image-size=24", f"--json={where}"]
    assert command.run(benchmark.main, flags) == 0
    out = capsys.readouterr().out
    assert "pipeline" in out and "% of the pipeline's work" in out
    record = json.loads(where.read_text())
    for part in ("decode", "pipeline"):
        assert len(record[part]["wall"]) == len(record[part]["core"]) == 2
        assert min(record[part]["wall"]) > 0
    assert record["config"]["batch_size"] == 4


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=smal"], "did you mean 'small'"),
        (["--dataset=small", "--crop=centre"], "did you mean 'center'"),
        (["--dataset=small", "--split=test"], "no split 'test'"),
        (["--dataset=small", "--batch-size=0"], "'0' is not a positive whole number"),
        (["--dataset=small", "--part=decoder"], "invalid choice: 'decoder'"),
    ],
)
def test_wrong_flags(data_dir, capsys, flags, message):
    code = command.run(benchmark.main, [*flags, f"--data-dir={data_dir}", *FAST[:2]])
    assert code == 2
    assert message in capsys.readouterr().err
