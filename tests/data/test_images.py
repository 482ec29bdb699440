import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from movq_jax.data.images import ImageError, decode_image
from movq_jax.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def as_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(rgb, alpha):
    alpha = alpha[..., None] / 255
    return rgb * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_come_back_as_they_were(format):
    image = decode_image(encoded(Image.fromarray(RGB), format))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, RGB)


def test_bytes_and_paths_give_the_same(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(RGB).save(path)
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode_image(source), RGB)


def test_jpeg_is_pillows_decoding():
    data = encoded(Image.fromarray(RGB), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data), expected)


def test_grey():
    image = decode_image(encoded(Image.fromarray(GREY)))
    np.testing.assert_array_equal(image, as_rgb(GREY))


def test_one_bit():
    bits = GREY > 127
    image = decode_image(encoded(Image.fromarray(bits)))
    np.testing.assert_array_equal(image, as_rgb(bits * np.uint8(255)))


def test_palette():
    palette = Image.fromarray(RGB).quantize(colors=16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encoded(palette)), expected)


def test_transparent_colour_of_a_palette_is_white():
    palette = Image.fromarray(RGB).quantize(colors=4)
    expected = np.array(palette.convert("RGB"))
    expected[np.asarray(palette) == 2] = 255
    for format in ("PNG", "GIF"):
        image = decode_image(encoded(palette, format, transparency=2))
        np.testing.assert_array_equal(image, expected)


def test_transparent_colour_of_an_rgb_png_is_white():
    colour = tuple(int(value) for value in RGB[2, 3])
    data = encoded(Image.fromarray(RGB), transparency=colour)
    expected = np.where((RGB == RGB[2, 3]).all(-1, keepdims=True), 255, RGB)
    np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white(format):
    alpha = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    rgba = Image.fromarray(np.dstack([RGB, alpha]))
    image = decode_image(encoded(rgba, format, **options))
    np.testing.assert_allclose(image, over_white(RGB, alpha), atol=1)
    assert (image[0] == 255).all()
    np.testing.assert_array_equal(image[1], RGB[1])


def test_grey_with_alpha():
    alpha = np.random.default_rng(2).integers(0, 256, GREY.shape, dtype=np.uint8)
    la = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    image = decode_image(encoded(la))
    np.testing.assert_allclose(image, over_white(as_rgb(GREY), alpha), atol=1)


def test_cmyk_jpeg():
    flat = Image.new("RGB", (16, 16), (200, 80, 30))
    image = decode_image(encoded(flat.convert("CMYK"), "JPEG", quality=95))
    assert image.shape == (16, 16, 3)
    np.testing.assert_allclose(image, np.asarray(flat), atol=4)


def test_16_bits_are_scaled_not_clipped():
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image = decode_image(encoded(Image.fromarray(deep)))
    np.testing.assert_array_equal(image, as_rgb(np.uint8([[0, 0, 1, 1, 128, 255]])))


def test_16_bits_of_a_pgm():
    data = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 25700, 65535)
    np.testing.assert_array_equal(decode_image(data)[0, :, 0], [0, 100, 255])


def test_16_bit_rgb_png():
    rows = b"".join(b"\0" + struct.pack(">6H", *range(0, 60001, 12000)) for _ in "ab")
    data = png_chunk(b"IHDR", struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0))
    data += png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    image = decode_image(b"\x89PNG\r\n\x1a\n" + data)
    expected = np.arange(0, 60001, 12000).reshape(2, 3) / 257
    np.testing.assert_allclose(image, [expected, expected], atol=1)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 0.25, 1], [0, 64, 255]),
        ([0, 100, 255], [0, 100, 255]),
        ([0, 25700, 65535], [0, 100, 255]),
        ([0, 1e5, 1e6], [0, 26, 255]),
        ([-1, np.nan, 0.2], [0, 0, 51]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_float_tiff_is_scaled_by_its_range(values, expected):
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    np.testing.assert_array_equal(decode_image(data)[0, :, 1], expected)


def test_32_bit_tiff_beyond_16_bits():
    deep = np.array([[-5, 0, 100_000, 200_000]], np.int32)
    image = decode_image(encoded(Image.fromarray(deep), "TIFF"))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 128, 255])


# What a camera stores so that turning by the tag gives the upright picture.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: np.rot90(image, 2),
    4: lambda image: image[::-1],
    5: lambda image: np.swapaxes(image, 0, 1),
    6: lambda image: np.rot90(image, 1),
    7: lambda image: np.swapaxes(np.rot90(image, 2), 0, 1),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encoded(stored, format, exif=exif, **options.get(format, {}))
    image = decode_image(data)
    np.testing.assert_allclose(image, RGB, atol=8 if format == "JPEG" else 0)


def test_exif_orientation_of_a_16_bit_grey():
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.rot90(GREY.astype(np.uint16) * 257).copy())
    image = decode_image(encoded(deep, exif=exif))
    np.testing.assert_array_equal(image, as_rgb(GREY))


def test_damaged_exif_is_passed_over():
    data = encoded(Image.fromarray(RGB), exif=b"Exif\0\0no exif at all")
    np.testing.assert_array_equal(decode_image(data), RGB)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **options
    )
    np.testing.assert_array_equal(decode_image(data)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_cut_off(format, cut, tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(ImageError, match=str(path)):
        decode_image(path)


def on_white(image):
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def sideways(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


PHOTOGRAPH = Image.fromarray(
    np.random.default_rng(4).integers(0, 256, (45, 61, 3), dtype=np.uint8)
).resize((122, 90), Image.Resampling.BICUBIC)
# The kinds of file that datasets hold beside plain RGB: image, format, options.
ODD = {
    "CMYK": (PHOTOGRAPH.convert("CMYK"), "JPEG", {}),
    "grey": (PHOTOGRAPH.convert("L"), "JPEG", {}),
    "progressive": (PHOTOGRAPH, "JPEG", {"progressive": True}),
    "chroma not subsampled": (PHOTOGRAPH, "JPEG", {"subsampling": 0}),
    "quality 1": (PHOTOGRAPH, "JPEG", {"quality": 1}),
    "turned": (PHOTOGRAPH, "JPEG", {"exif": sideways(6)}),
    "mirrored and turned": (PHOTOGRAPH, "JPEG", {"exif": sideways(7)}),
    "PNG inside": (PHOTOGRAPH, "PNG", {}),
    "palette": (PHOTOGRAPH.quantize(200), "PNG", {}),
    "palette with alpha": (PHOTOGRAPH.quantize(9), "PNG", {"transparency": 3}),
    "GIF": (PHOTOGRAPH.quantize(200), "GIF", {}),
    "1 bit": (PHOTOGRAPH.convert("1"), "PNG", {}),
    "1 bit fax": (PHOTOGRAPH.convert("1"), "TIFF", {"compression": "group4"}),
    "grey with alpha": (PHOTOGRAPH.convert("LA"), "PNG", {}),
    "turned TIFF": (PHOTOGRAPH, "TIFF", {"exif": sideways(6)}),
    "CMYK TIFF": (PHOTOGRAPH.convert("CMYK"), "TIFF", {}),
    "YCbCr TIFF": (PHOTOGRAPH.convert("YCbCr"), "TIFF", {}),
    "Lab TIFF": (PHOTOGRAPH.convert("LAB"), "TIFF", {}),
    "lossy WEBP": (PHOTOGRAPH, "WEBP", {}),
    "JPEG 2000": (PHOTOGRAPH, "JPEG2000", {}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_pillows(kind, tmp_path):
    image, format, options = ODD[kind]
    path = tmp_path / "n02105855_2933.JPEG"  # whatever is inside
    path.write_bytes(encoded(image, format, **options))
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.has_transparency_data:
            upright = on_white(upright)
        expected = np.asarray(upright.convert("RGB"))
    np.testing.assert_array_equal(decode_image(path), expected)


def test_16_bit_grey_is_rounded_to_8():
    deep = np.random.default_rng(5).integers(0, 65536, (9, 11), dtype=np.uint16)
    expected = np.rint(deep / 257).astype(np.uint8)
    for format in ("PNG", "TIFF"):
        image = decode_image(encoded(Image.fromarray(deep), format))
        np.testing.assert_array_equal(image, as_rgb(expected))


def test_text_called_jpg(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
        decode_image(path)


def test_damaged_bytes_inside_a_png():
    data = bytearray(encoded(Image.fromarray(RGB)))
    data[-30] ^= 0xFF
    with pytest.raises(ImageError, match="the photograph cannot be decoded"):
        decode_image(bytes(data), name="the photograph")


def test_empty_missing_and_folder(tmp_path):
    with pytest.raises(ImageError, match="the image is empty"):
        decode_image(b"")
    with pytest.raises(ImageError, match="No such file"):
        decode_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="Is a directory"):
        decode_image(tmp_path)


def test_decompression_bomb():
    header = png_chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match="too large"):
        decode_image(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IEND", b""))


def test_real_photographs(real_samples):
    for path in sorted((real_samples / "data" / "ade20k").rglob("*.jpg")):
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(decode_image(path), expected)


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    )
