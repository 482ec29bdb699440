import math

import numpy as np

from movq_jax.evaluation import rows

A = np.zeros((16, 20, 3), np.uint8)
B = np.full((16, 20, 3), 10, np.uint8)


def test_measure():
    row = rows.measure("a", A, B)
    assert (row.name, row.height, row.width) == ("a", 16, 20)
    assert row.psnr_text == "28.13 dB"
    assert 0 < row.ssim < 1


def test_what_has_no_number_is_left_out_of_the_mean_and_said():
    exact = rows.measure("exact", A, A)
    small = rows.measure("small", A[:5], B[:5])
    plain = rows.measure("plain", A, B)
    assert math.isinf(exact.psnr) and exact.psnr_text == "exact"
    assert small.ssim is None and small.ssim_text == "n/a"
    mean = rows.summary([exact, small, plain])
    assert mean["psnr"] == (small.psnr + plain.psnr) / 2
    assert mean["ssim"] == (1 + plain.ssim) / 2
    assert (mean["psnr_left_out"], mean["ssim_left_out"]) == (1, 1)
    text = rows.table([exact, small, plain])
    assert "exact, so not in the mean PSNR: 1" in text
    assert "too small for SSIM: 1" in text


def test_no_numbers_at_all():
    row = rows.measure("a", A[:5], A[:5])
    assert rows.summary([row])["psnr"] is None
    assert rows.summary([row])["ssim"] is None
    assert rows.table([row]).splitlines()[-1].split()[-2:] == ["exact", "n/a"]


def test_the_table_is_aligned():
    names = ["a", "a_rather_long_name"]
    lines = rows.table([rows.measure(name, A, B) for name in names]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["image", "size", "PSNR", "SSIM"]
    assert lines[-1].startswith("mean of 2")
