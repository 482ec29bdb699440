import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "launch" / "measure_decoding.py"


@pytest.fixture(scope="module")
def main():
    """The script's `main`."""
    spec = importlib.util.spec_from_file_location("measure_decoding", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main


def test_table_of_decoders(main, tmp_path, capsys):
    for number, mode in enumerate(["RGB", "RGB", "L"]):
        image = np.full((40, 50, 3), 80 * number, np.uint8)
        Image.fromarray(image).convert(mode).save(tmp_path / f"{number}.jpg")
    main([str(tmp_path), "--image-size=10", "--rounds=1"])
    title, _, pillow, reduced, *_ = capsys.readouterr().out.splitlines()
    assert title == "2 images, to 10 x 10"
    assert pillow.startswith("Pillow ") and pillow.endswith("none")
    assert reduced.startswith("reduced ") and reduced.endswith("another size")


def test_nothing_to_measure(main, tmp_path):
    with pytest.raises(SystemExit, match="no JPEG in colour"):
        main([str(tmp_path)])
