"""Pictures are hostile input: no path out of the root, no pixels over the bound, nothing but pictures decoded."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from lvlm_lens.data import images
from lvlm_lens.data.images import ImageBytes, ImageFile, as_image_source
from lvlm_lens.errors import DataError


def png_header(width, height):
    """A PNG that claims a size and holds no pixels: whoever decodes it fails otherwise than whoever refuses it."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", body), (b"IDAT", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_picture_over_the_pixel_bound_is_refused_before_decoding(tmp_path):
    bomb = png_header(8_000, 8_000)
    with pytest.raises(DataError, match="8000 x 8000 pixels, more than the bound"):
        ImageBytes(bomb).load()
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(DataError, match=r"'bomb\.png' has 8000 x 8000"):
        ImageFile(tmp_path, "bomb.png").load()
    with pytest.raises(DataError, match="decompression bomb"):  # Pillow's own bound comes first for such a size
        ImageBytes(png_header(40_000, 40_000)).load()
    with pytest.raises(DataError, match="not a readable image"):  # under the bound it is decoded, and broken
        ImageBytes(png_header(100, 100)).load()


def test_the_bound_is_on_pixels_not_on_bytes(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    small, large = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (10, 10)).save(small, "PNG")
    Image.new("RGB", (10, 11)).save(large, "PNG")
    assert ImageBytes(small.getvalue()).load().size == (10, 10)
    with pytest.raises(DataError, match="10 x 11 pixels"):
        ImageBytes(large.getvalue()).load()


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "link.png", "linked/secret.png"])
def test_a_path_out_of_the_root_is_refused_before_it_is_opened(tmp_path, path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (4, 4)).save(secret)
    (root / "link.png").symlink_to(secret)
    (root / "linked").symlink_to(tmp_path)
    for read in (ImageFile(root, path).load, lambda: ImageFile(root, path).key):
        with pytest.raises(DataError, match="leaves the data root"):
            read()


def test_an_absolute_path_needs_no_root_and_under_a_root_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert as_image_source(tmp_path / "a.png").load().size == (4, 4)
    with pytest.raises(DataError, match="absolute"):
        ImageFile(tmp_path, str(tmp_path / "a.png")).load()
    with pytest.raises(DataError, match="not there"):
        ImageFile(tmp_path, "b.png").load()


def test_a_pickle_named_as_a_picture_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    (tmp_path / "trap.png").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="not a readable image"):
        ImageFile(tmp_path, "trap.png").load()
    assert not (tmp_path / "sprung").exists()


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return ImageBytes(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_cut_off(kind):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    shown = np.asarray(encoded(Image.fromarray(ramp), kind).load())
    assert shown.shape == (64, 64, 3)
    np.testing.assert_allclose(shown[..., 0], ramp / 65535 * 255, atol=0.51)
    assert np.array_equal(np.asarray(as_image_source(Image.fromarray(ramp)).load()), shown)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pictures_of_32_bits_are_refused(dtype):
    picture = Image.fromarray(np.ones((4, 4), dtype))
    with pytest.raises(DataError, match="32-bit values, whose range nothing says"):
        encoded(picture, "TIFF").load()
    with pytest.raises(DataError, match="32-bit values"):
        as_image_source(picture).load()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_is_read_as_transformers_reads_it(mode, tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8), "RGBA")
    picture = picture.convert("L" if mode == "1" else mode).convert(mode) if mode != "RGBA" else picture
    file = tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png")
    picture.save(file)
    assert np.array_equal(np.asarray(ImageFile(tmp_path, file.name).load()), np.asarray(load_image(str(file))))
