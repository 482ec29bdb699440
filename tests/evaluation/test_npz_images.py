import tracemalloc

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.npz_images import image_shape, members, read_images

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_come_one_by_one(tmp_path, save):
    path = tmp_path / "samples.npz"
    save(path, arr_0=IMAGES, arr_1=np.arange(5))
    assert members(path) == ["arr_0", "arr_1"]
    assert image_shape(path) == (5, 4, 6, 3)
    np.testing.assert_array_equal(list(read_images(path)), IMAGES)


def test_a_large_file_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "large.npz"
    np.savez_compressed(path, arr_0=np.zeros((64, 256, 256, 3), np.uint8))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_images(path)) == 64
        assert tracemalloc.get_traced_memory()[1] < 4 * 256 * 256 * 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "no array 'arr_0' of images, only images"),
        ({"arr_0": IMAGES.astype(np.float32)}, "uint8 .* not float32"),
        ({"arr_0": IMAGES[..., :1]}, r"not uint8 \[5, 4, 6, 1\]"),
        ({"arr_0": IMAGES[:0]}, r"not uint8 \[0, 4, 6, 3\]"),
        ({"arr_0": np.asarray([{"a": 1}, None])}, "not object"),
        ({"arr_0": np.asfortranarray(IMAGES)}, "not stored image after image"),
    ],
)
def test_what_holds_no_images(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        image_shape(path)


def test_damaged_files(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, arr_0=IMAGES)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match="is not an npz file, or it is cut off"):
        image_shape(path)
    for images, message in [
        (IMAGES, "'arr_0' cannot be read: Bad CRC"),
        (np.tile(IMAGES, (400, 1, 1, 1)), "is damaged at image"),
    ]:
        np.savez(path, arr_0=images)
        whole = path.read_bytes()
        where = len(whole) // 2
        path.write_bytes(whole[:where] + b"xxxx" + whole[where + 4 :])
        with pytest.raises(UserError, match=message):
            list(read_images(path))
    with pytest.raises(UserError, match="cannot read .*none.npz: No such file"):
        image_shape(tmp_path / "none.npz")
