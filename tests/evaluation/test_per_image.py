import csv
import math

from movq_jax.evaluation.per_image import write_csv


def test_a_line_an_image(tmp_path):
    path = tmp_path / "new" / "a.csv"
    columns = {"psnr": [30.5, math.inf], "ssim": [0.1, math.nan]}
    write_csv(path, ["a,b", "c\udcff"], columns)
    with path.open(newline="", errors="surrogateescape", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "psnr", "ssim"]
    assert rows[1:] == [["a,b", "30.5", "0.1"], ["c\udcff", "inf", "nan"]]
