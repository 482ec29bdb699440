"""The first command of the project, on a sample of COCO: it trains and resumes."""

import json

import pytest

from movq_jax.config import load_config
from movq_jax.tools import prepare
from movq_jax.training import loop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def coco_dir(real_samples, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    source = real_samples / "data/coco"
    prepare.main(["--dataset=coco", f"--source={source}", f"--data-dir={data_dir}"])
    return data_dir


def test_dualvq_coco_tiny_goes_on_where_it_stopped(coco_dir, tmp_path):
    def run(steps):
        fields = [f"data.data_dir={coco_dir}", f"train.num_steps={steps}"]
        config = load_config("dualvq_coco:tiny", fields)
        return config, loop.train(config, tmp_path / "run")

    _, first = run(2)
    config, second = run(4)
    assert second != first
    assert loop.evaluate(config, tmp_path / "run") == pytest.approx(second)

    log = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    evaluated = [json.loads(line) for line in log if '"val/' in line]
    assert [record["step"] for record in evaluated] == [2, 3, 4]
    for record in evaluated:
        assert 0 < record["val/global_codebook_usage"] <= 1
        assert 0 < record["val/local_codebook_usage"] <= 1
        assert record["val/psnr"] > 0
