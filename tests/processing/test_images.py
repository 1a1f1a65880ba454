"""Pictures of every kind become uint8 RGB, or a sentence that says why not."""

import io
import os
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import sam2_jax
from sam2_jax.processing.images import center_crop, image_size, normalize, open_image, to_pixels, to_rgb

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def gradient() -> np.ndarray:
    return np.arange(4 * 6, dtype=np.uint8).reshape(4, 6) * 10


def test_rgb_is_kept(gradient: np.ndarray) -> None:
    rgb = np.stack([gradient, gradient // 2, 255 - gradient], axis=-1)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(rgb)), rgb)
    np.testing.assert_array_equal(to_rgb(rgb), rgb)


@pytest.mark.parametrize("as_array", [False, True])
def test_grey_is_repeated(gradient: np.ndarray, as_array: bool) -> None:
    grey = gradient if as_array else Image.fromarray(gradient)
    np.testing.assert_array_equal(to_rgb(grey), np.stack([gradient] * 3, axis=-1))


@pytest.mark.parametrize("as_array", [False, True])
def test_transparency_is_laid_on_white(as_array: bool) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 255
    rgba[0, :, 3] = 0, 128, 255
    rgb = to_rgb(rgba if as_array else Image.fromarray(rgba))
    np.testing.assert_array_equal(rgb[0], [[255, 255, 255], [255, 127, 127], [255, 0, 0]])


def test_arrays_may_be_channels_first(gradient: np.ndarray) -> None:
    rgb = np.stack([gradient, gradient // 2, 255 - gradient], axis=-1)
    np.testing.assert_array_equal(to_rgb(np.moveaxis(rgb, -1, 0)), rgb)
    np.testing.assert_array_equal(to_rgb(np.moveaxis(rgb, -1, 0), "channels_first"), rgb)
    np.testing.assert_array_equal(to_rgb(gradient, "none")[..., 1], gradient)


def test_a_layout_left_open_is_channels_last_unless_said() -> None:
    image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    np.testing.assert_array_equal(to_rgb(image), image)
    np.testing.assert_array_equal(to_rgb(image, "channels_first"), np.moveaxis(image, 0, -1))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("channels_frist", "must be one of .*channels_first.* got 'channels_frist'"),
        (
            "channels_first",
            "laid out as input_data_format 'channels_first' says; got ndarray of shape .5, 6, 3.",
        ),
        ("none", "laid out as input_data_format 'none' says"),
    ],
)
def test_a_layout_that_does_not_fit_is_a_sentence(layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(np.zeros((5, 6, 3), np.uint8), layout)


def test_floating_point_is_kept_as_it_is() -> None:
    image = np.random.default_rng(0).random((4, 5, 3))
    pixels = to_pixels(image)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, image.astype(np.float32))
    clear = np.concatenate([image, np.zeros((4, 5, 1))], axis=-1)
    np.testing.assert_array_equal(to_pixels(clear), 1)
    with pytest.raises(ValueError, match="transparency in floating point must have values 0 to 1"):
        to_pixels(255 * clear)


def test_integers_of_other_types_are_taken_by_value() -> None:
    image = np.arange(24).reshape(2, 4, 3)
    assert to_rgb(image).dtype == np.uint8
    np.testing.assert_array_equal(to_rgb(image), image)


def test_what_is_not_rgb_is_refused_if_it_is_not_to_be_converted() -> None:
    with pytest.raises(ValueError, match="3 channels if do_convert_rgb is False; got 1"):
        to_pixels(np.zeros((4, 4), np.uint8), do_convert_rgb=False)
    with pytest.raises(ValueError, match="must be RGB if do_convert_rgb is False; got mode L"):
        to_pixels(Image.new("L", (4, 4)), do_convert_rgb=False)


def test_a_crop_is_the_middle_and_zeros_where_there_is_none() -> None:
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(center_crop(image, 1, 2)[..., 0], [[6, 7]])
    np.testing.assert_array_equal(center_crop(image, 1, 7)[..., 0], [[0, 5, 6, 7, 8, 0, 0]])


def test_palette_keeps_its_colours_and_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    np.testing.assert_array_equal(to_rgb(palette)[0], [RED, GREEN])
    palette.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(to_rgb(tmp_path / "p.png")[0], [RED, (255, 255, 255)])


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "g.png")
    Image.fromarray(grey).save(tmp_path / "g.tif")
    (tmp_path / "g.pgm").write_bytes(b"P5 3 1 65535\n" + grey.astype(">u2").tobytes())
    of_files = [tmp_path / name for name in ("g.png", "g.tif", "g.pgm")]
    of_arrays = [grey, grey.astype(">u2"), grey.astype("<u2"), Image.fromarray(grey)]
    for image in (*of_files, *of_arrays):
        np.testing.assert_array_equal(to_rgb(image)[0, :, 0], [0, 100, 255])


def test_equal_numbers_are_equal_pixels() -> None:
    """Whatever holds them and in whatever byte order: a type alone says what its numbers mean."""
    values = np.arange(0, 256, 5).reshape(4, 13)
    for dtype in ("u1", "i2", "<i4", ">i4", ">u4", "i8", ">u8"):
        np.testing.assert_array_equal(to_rgb(values.astype(dtype))[..., 1], values)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(values.astype(np.int32)))[..., 1], values)
    np.testing.assert_array_equal(to_rgb(values.tolist())[..., 1], values)
    for dtype in ("f2", "<f4", ">f4", ">f8"):
        np.testing.assert_array_equal(to_pixels(values.astype(dtype))[..., 1], values)
    np.testing.assert_array_equal(to_pixels(Image.fromarray(values.astype(np.float32)))[..., 1], values)
    for kind in (lambda x: x, Image.fromarray):
        with pytest.raises(ValueError, match="int32 must have values 0 to 255; .*convert it to uint16"):
            to_rgb(kind(np.array([[0, 256]], np.int32)))


def test_few_bits_in_16_are_warned_of() -> None:
    for highest in (255, 1023, 4095):
        for dtype in ("<u2", ">u2"):
            with pytest.warns(UserWarning, match=f"no value above {highest}; uint16 means 0 to 65535"):
                to_rgb(np.array([[0, highest]], dtype))
    to_rgb(np.array([[0, 4096]], np.uint16))
    to_rgb(np.zeros((1, 2), np.uint16))


def test_channels_are_left_alone_if_they_are_not_to_be_converted() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 4), np.uint8)
    for given in (image, np.moveaxis(image, -1, 0), Image.fromarray(image)):
        np.testing.assert_array_equal(to_pixels(given, do_convert_rgb=False, channels=4), image)
    two = image[..., :2]
    for given in (two, np.moveaxis(two, -1, 0)):
        np.testing.assert_array_equal(to_pixels(given, do_convert_rgb=False, channels=2), two)
    with pytest.raises(ValueError, match="must be RGBA or CMYK if do_convert_rgb is False; got mode RGB"):
        to_pixels(Image.new("RGB", (2, 2)), do_convert_rgb=False, channels=4)


def test_cmyk_becomes_rgb() -> None:
    np.testing.assert_array_equal(to_rgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))[0, 0], RED)


def test_animation_gives_its_first_frame_and_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="2 frames; only the first is used"):
        image = open_image(tmp_path / "a.gif")
    np.testing.assert_array_equal(to_rgb(image)[0, 0], RED)


def test_exif_rotation_is_applied_to_files(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated 90 degrees clockwise
    image.save(tmp_path / "e.png", exif=exif)
    rgb = to_rgb(tmp_path / "e.png")
    assert rgb.shape == (4, 2, 3)
    np.testing.assert_array_equal(rgb[0, 1], RED)


def test_normalize_is_the_formula() -> None:
    out = normalize(np.array([[[0, 255, 51]]], np.uint8), (0.5, 0.5, 0.2), (0.25, 0.5, 0.1))
    np.testing.assert_allclose(out[0, 0], [-2, 1, 0], atol=1e-6)
    assert out.dtype == np.float32


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link(path: Path) -> Path:
    path.symlink_to(path)
    return path


def broken_png(tmp_path: Path) -> Path:
    path = tmp_path / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    return write(path, path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "none.png", "there is no picture"),
        (lambda d: write(d / "t.jpg", b"hello"), "not a picture"),
        (lambda d: write(d / "z.jpg", b""), "not a picture"),
        (broken_png, "truncated or broken"),
        (lambda d: np.zeros((0, 4, 3), np.uint8), "must have pixels"),
        (lambda d: Image.new("RGB", (0, 4)), "must have pixels; got 0 x 4"),
        (lambda d: np.zeros((4, 4, 3)), "integers, 0 to 255, here; got float64: convert it to uint8"),
        (lambda d: np.zeros((5, 4, 5), np.uint8), r"of shape \(5, 4, 5\) and type uint8"),
        (lambda d: np.zeros((4, 4, 3), bool), "of numbers; got ndarray of shape .* type bool"),
        (lambda d: np.full((4, 4, 3), 300), "of int64 must have values 0 to 255; got 300 to 300"),
        (lambda d: np.full((4, 4, 3), np.nan), "finite numbers; got NaN"),
        (
            lambda d: "https://example.org/photo.jpg",
            "no picture https://example.org/photo.jpg: download it first",
        ),
        (lambda d: Image.new("F", (2, 2)), "must have integers, 0 to 255, here; got float32"),
        (lambda d: Image.fromarray(np.full((2, 2), -1, np.int32)), "of int32 must have values 0 to 255"),
        (lambda d: 7, "got int"),
        (lambda d: np.full((2, 2), 1e300), r"at most 1e\+09 in size"),
        (lambda d: Image.open(io.BytesIO(broken_png(d).read_bytes())), "truncated or broken"),
        (lambda d: d, "cannot be read: it is not a file"),
        (lambda d: pipe(d / "p.png"), "cannot be read: it is not a file"),
        (lambda d: link(d / "l.png"), "cannot be read: Too many levels of symbolic links"),
        (lambda d: "x" * 300 + ".jpg", r"\.\.\. x+.jpg cannot be read: File name too long"),
        (lambda d: "nul\0.jpg", "cannot be read"),
    ],
)
def test_what_is_not_a_photo_is_a_sentence(make: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(make(tmp_path))


def test_one_limit_on_pixels_for_pictures_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "b.png"
    image = Image.new("RGB", (100, 90))
    image.save(path)
    for given in (path, image, np.asarray(image), Image.open(path)):
        assert to_pixels(given, max_pixels=9000).shape == (90, 100, 3)
        with pytest.raises(ValueError, match=r"too large to be a photo: 100 x 90 .* limit of 8,999.*max_pix"):
            to_pixels(given, max_pixels=8999)
    with pytest.raises(ValueError, match="b.png is too large to be a photo"):
        image_size(path, max_pixels=8999)
    with pytest.raises(ValueError, match="a side may have 1,048,576"):
        to_pixels(np.broadcast_to(np.uint8(0), (1, 2**20 + 1, 3)))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [struct.pack(">I", 13), header, struct.pack(">I", zlib.crc32(header)), struct.pack(">I", 9)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + b"IDAT" + bytes(9)


def test_the_limit_is_above_what_phones_make_and_needs_the_header_alone(tmp_path: Path) -> None:
    phone = write(tmp_path / "phone.png", png_header(16320, 12240))
    assert image_size(phone) == (12240, 16320)
    bomb = write(tmp_path / "bomb.png", png_header(60_000, 60_000))
    for read in (open_image, image_size, to_rgb):
        with pytest.raises(ValueError, match="bomb.png is too large to be a photo: 60000 x 60000 pixels"):
            read(bomb)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "png with EXIF behind its pixels"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_size_that_a_header_says_is_the_pictures(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{kind[:4].strip()}"
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    if "behind" in kind:
        content = path.read_bytes()
        at, pixels, end = (content.index(name) - 4 for name in (b"eXIf", b"IDAT", b"IEND"))
        path.write_bytes(content[:at] + content[pixels:end] + content[at:pixels] + content[end:])
    assert image_size(path) == to_rgb(path).shape[:2] == ((60, 40) if orientation == 6 else (40, 60))


def test_pillows_limit_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns above its limit, and refuses above twice its limit, in all threads or in none."""
    Image.new("RGB", (100, 100)).save(tmp_path / "b.png")
    for limit in (9000, 4000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert open_image(tmp_path / "b.png").size == (100, 100)


def test_threads_leave_warnings_as_they_are(tmp_path: Path) -> None:
    """Pictures are opened in 8 threads while the program warns: its filters stay what they are."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            opened = pool.map(to_rgb, [tmp_path / "a.gif"] * 96)
            warnings.warn("of the program itself", stacklevel=1)
            assert all((image[0, 0] == RED).all() for image in opened)
        assert warnings.filters == before


def test_no_module_sets_what_a_process_shares() -> None:
    """Filters of warnings and Pillow's settings belong to the program; a command is one."""
    package = Path(sam2_jax.__file__).parent
    settings = "catch_warnings|simplefilter|filterwarnings|MAX_IMAGE_PIXELS =|LOAD_TRUNC|seterr|setrecursion"
    for file in package.rglob("*.py"):
        if "commands" not in file.parts:
            assert not re.search(settings, file.read_text()), file
