"""Datasets: COCO's annotations and label maps become examples; what is damaged is left out, and said."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from PIL.ExifTags import Base
from pycocotools import mask as coco_mask
from small_models import model_of, smallest_config

from sam2_jax.image.annotate import annotate
from sam2_jax.image.automatic import AutomaticMaskGenerator, GeneratedMask
from sam2_jax.processing.drawing import palette_image
from sam2_jax.processing.rle import encode_rle
from sam2_jax.training.batches import Shuffled
from sam2_jax.training.datasets import open_dataset
from sam2_jax.training.examples import Dataset, split

HEIGHT, WIDTH = 20, 30
SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0, 2.0, 11.0]]


def photo(path: Path, height: int = HEIGHT, width: int = WIDTH, value: int = 90, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path, **options)
    return path


def damage(path: Path) -> None:
    """Cut a noisy picture's file, so that its header is whole and its pixels are not."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])


def image(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} | changes


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "iscrowd": 0, "category_id": 1, "segmentation": SQUARE} | changes


def coco(folder: Path, annotations: list[Any], images: list[Any] | None = None) -> Path:
    """A COCO file beside a picture 1.png."""
    photo(folder / "1.png")
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images or [image()], "annotations": annotations}))
    return path


def a_mask(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.6


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# COCO


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_polygons_are_masks_as_pycocotools_draws_them(tmp_path: Path) -> None:
    two_parts = [[1, 1, 9, 1, 9, 9, 1, 9], [15, 5, 28, 5, 28, 18]]
    beyond = [[-10, -5, 14, -5, 14, 12, -10, 12]]
    path = coco(tmp_path, [annotation(1, segmentation=two_parts), annotation(2, segmentation=beyond)])
    dataset = open_dataset(path)
    example = dataset[0]
    assert (len(dataset), dataset.problems, example.name) == (1, [], "1.png")
    assert example.image.dtype == np.uint8
    assert (example.image == 90).all()
    assert example.image.shape == (HEIGHT, WIDTH, 3)
    assert (example.masks.dtype, example.masks.shape) == (bool, (2, HEIGHT, WIDTH))
    for mask, polygons in zip(example.masks, (two_parts, beyond), strict=True):
        rles = coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)
        assert iou(mask, coco_mask.decode(coco_mask.merge(rles)).astype(bool)) > 0.9
    np.testing.assert_array_equal(np.argwhere(example.masks[1])[[0, -1]], [[0, 0], [11, 13]])  # clipped


@pytest.mark.parametrize("kind", ["compressed", "counts"])
def test_run_lengths_are_pycocotools_masks(tmp_path: Path, kind: str) -> None:
    rle: Any = coco_mask.encode(np.asfortranarray(a_mask().astype(np.uint8)))
    rle = {"size": rle["size"], "counts": rle["counts"].decode()}
    rle = rle if kind == "compressed" else encode_rle(a_mask())
    assert isinstance(rle["counts"], str) == (kind == "compressed")
    example = open_dataset(coco(tmp_path, [annotation(segmentation=rle)]))[0]
    np.testing.assert_array_equal(example.masks, [a_mask()])


def test_pictures_are_found_beside_the_file_in_images_or_where_they_are_said_to_be(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "2.png", value=2)
    photo(tmp_path / "images" / "sub" / "3.png", value=3)
    photo(tmp_path / "elsewhere" / "1.png", value=7)
    images = [image(1), image(2), image(3, file_name="sub\\3.png")]  # as written on Windows
    path = coco(tmp_path, [annotation(n, image_id=n) for n in (1, 2, 3)], images)
    dataset = open_dataset(path)
    assert [example.image[0, 0, 0] for example in dataset.readable()] == [90, 2, 3]
    dataset = open_dataset(path, tmp_path / "elsewhere")
    assert [example.image[0, 0, 0] for example in dataset.readable()] == [7]
    assert "image 2 ('2.png') was left out: there is no such file in" in dataset.problems[0]


def test_two_pictures_of_one_name_are_not_taken_for_one_another(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "images" / "a.png")
    data = coco(tmp_path, [annotation()], [image(file_name="a.png")])
    assert len(open_dataset(data)) == 1  # the same twice
    photo(tmp_path / "images" / "a.png", value=91)
    with pytest.raises(ValueError, match=r"are two pictures, and one alone can be meant"):
        open_dataset(data)
    assert open_dataset(data, tmp_path / "images")[0].image[0, 0, 0] == 91


def test_crowds_small_masks_and_pictures_without_masks_are_counted(tmp_path: Path) -> None:
    photo(tmp_path / "2.png")
    dot = [[4, 4, 6, 4, 6, 6, 4, 6]]
    crowd = annotation(2, iscrowd=1, segmentation=encode_rle(a_mask()))
    path = coco(tmp_path, [annotation(1), crowd, annotation(3, segmentation=dot)], [image(1), image(2)])
    dataset = open_dataset(path, min_area=5)
    assert [mask.sum() for mask in dataset[0].masks] == [80]
    crowds = "annotations with iscrowd 1, many objects in one mask (iscrowd 0 would train on them)"
    assert dataset.left_out == {crowds: 1, "masks below 5 pixels": 1, "pictures without masks": 1}
    assert (len(dataset), dataset.problems) == (1, [])
    assert len(open_dataset(path, min_area=4)[0].masks) == 2


RLE = encode_rle(np.ones((HEIGHT, WIDTH), bool))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_id": 9}, "no image has its image_id, 9"),
        ({"image_id": [1]}, "no image has its image_id, [1]"),
        ({"image_id": float("nan")}, "no image has its image_id, nan"),
        ({"iscrowd": "no"}, "iscrowd must be 0 or 1; got 'no'"),
        ({"segmentation": None}, "segmentation must be polygons or an RLE; got None"),
        ({"segmentation": []}, "covers no pixel"),
        ({"segmentation": [[1, 1, 9, 9]]}, "covers no pixel"),
        ({"segmentation": [[1, 1, 5, 1, 9, 1]]}, "covers no pixel"),
        ({"segmentation": [[50, 50, 90, 50, 90, 90]]}, "covers no pixel"),
        ({"segmentation": [[1, 1, 9, 1, 9]]}, "polygons must be [x0, y0,"),
        ({"segmentation": [1, 1, 9, 1, 9, 9]}, "polygons must be [x0, y0,"),
        ({"segmentation": [[1, 1, 9, float("nan"), 9, 9]]}, "polygons must be [x0, y0,"),
        ({"segmentation": [[1, 1, 9, 1e300, 9, 9]]}, "polygons must be [x0, y0,"),
        ({"segmentation": [[1, 1, 9, 10**400, 9, 9]]}, "polygons must be [x0, y0,"),
        ({"segmentation": [{"x": 1}]}, "polygons must be [x0, y0,"),
        ({"segmentation": ["abc"]}, "polygons must be [x0, y0,"),
        (
            {"segmentation": encode_rle(np.ones((WIDTH, HEIGHT), bool))},
            "size must be the picture's, [20, 30]",
        ),
        ({"segmentation": {"counts": RLE["counts"]}}, "size must be the picture's, [20, 30]; got None"),
        ({"segmentation": {"size": [20, 30]}}, "must be a dictionary with size and counts"),
        ({"segmentation": RLE | {"counts": [-600, 1200]}}, "must not be negative"),
        ({"segmentation": RLE | {"counts": [0, 10**30]}}, "must be a list of integers"),
        ({"segmentation": RLE | {"counts": [0, 601]}}, "must sum to 20 x 30 = 600; got 601"),
        ({"segmentation": RLE | {"counts": "\ud800"}}, "was left out"),
        ({"segmentation": RLE | {"counts": "not one"}}, 'must be characters from "0" to "o"'),
        ({"segmentation": RLE | {"counts": [600]}}, "covers no pixel"),
    ],
)
def test_a_damaged_annotation_is_a_problem_and_the_rest_stays(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    dataset = open_dataset(coco(tmp_path, [annotation(7, **changes), annotation(8)]))
    assert len(dataset.problems) == 1
    assert dataset.problems[0].startswith("annotation 7 was left out: ")
    assert problem in dataset.problems[0]
    assert [mask.sum() for mask in dataset[0].masks] == [80]


def test_annotations_need_no_ids_of_their_own(tmp_path: Path) -> None:
    nameless = {key: value for key, value in annotation().items() if key != "id"}
    ids = [nameless, *(annotation(i) for i in ([3], None, float("nan"), True, 1, 1))]  # type: ignore[arg-type]
    dataset = open_dataset(coco(tmp_path, [*ids, "?", None]))
    assert len(dataset[0].masks) == len(ids)
    assert dataset.problems == [
        "annotation number 8 of the list was left out: it must be an object; got '?'",
        "annotation number 9 of the list was left out: it must be an object; got None",
    ]


def test_no_word_of_a_crowd_is_no_crowd(tmp_path: Path) -> None:
    assert len(open_dataset(coco(tmp_path, [annotation(iscrowd=None)]))[0].masks) == 1


def test_a_degenerate_part_leaves_the_other_parts(tmp_path: Path) -> None:
    dataset = open_dataset(coco(tmp_path, [annotation(segmentation=[[1, 1], *SQUARE, []])]))
    assert dataset[0].masks.sum() == 80
    assert not dataset.problems


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file_name": "none.png"}, "there is no such file in"),
        ({"file_name": None}, "file_name must be a string; got None"),
        ({"file_name": ""}, "file_name must be a string; got ''"),
        ({"file_name": "."}, "there is no such file in"),
        ({"file_name": "a\0b"}, "there is no such file in"),
        ({"file_name": "\ud800.png"}, "there is no such file in"),
        ({"file_name": "a" * 5000}, "there is no such file in"),
        ({"file_name": "coco.json"}, "is not a picture in a format that Pillow reads"),
        ({"width": 31}, "it is 30 x 20 pixels, upright as EXIF has it; the JSON says 31 x 20"),
        ({"height": -20}, "the JSON says 30 x -20"),
        ({"height": 10**30}, "it is 30 x 20"),
        ({"height": float("nan")}, "the JSON says 30 x nan"),
        ({"height": "20"}, "the JSON says 30 x '20'"),
        ({"id": None}, "id must be a number or a string; got None"),
    ],
)
def test_a_damaged_image_is_a_problem_and_the_rest_stays(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    photo(tmp_path / "2.png")
    annotations = [annotation(1), annotation(2, image_id=2)]
    dataset = open_dataset(coco(tmp_path, annotations, [image(1), image(2, **changes)]))
    assert [entry.name for entry in dataset.readable()] == ["1.png"]
    assert problem in dataset.problems[0]
    # Its annotations are not problems of their own, unless nobody knows that they are its.
    assert len(dataset.problems) == (2 if "id" in changes else 1)


def test_width_and_height_may_be_left_to_the_picture(tmp_path: Path) -> None:
    path = coco(tmp_path, [annotation()], [{"id": 1, "file_name": "1.png"}])
    assert open_dataset(path)[0].masks.shape == (1, HEIGHT, WIDTH)


def test_an_image_twice_is_used_once_but_two_of_one_id_are_not_used(tmp_path: Path) -> None:
    photo(tmp_path / "2.png")
    images = [image(1), image(1), image(2), image(2, file_name="1.png")]
    dataset = open_dataset(coco(tmp_path, [annotation(1), annotation(2, image_id=2)], images))
    assert [example.name for example in dataset.readable()] == ["1.png"]
    assert dataset.problems == [
        "image 1 ('1.png') was left out: it is in the list twice; the first is used",
        "image 2 ('1.png') was left out: '2.png' has the same id and was left out, too",
    ]


def turned_photo(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    return photo(path, height, width, exif=exif)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_annotations_are_those_of_the_picture_upright(tmp_path: Path, kind: str) -> None:
    turned_photo(tmp_path / f"2.{kind}", WIDTH, HEIGHT)
    turned_photo(tmp_path / f"3.{kind}", HEIGHT, WIDTH)
    images = [image(2, file_name=f"2.{kind}"), image(3, file_name=f"3.{kind}")]
    dataset = open_dataset(coco(tmp_path, [annotation(n, image_id=n) for n in (2, 3)], images))
    assert [example.name for example in dataset.readable()] == [f"2.{kind}"]
    assert dataset[0].image.shape == (HEIGHT, WIDTH, 3)
    assert "it is 20 x 30 pixels, upright as EXIF has it; the JSON says 30 x 20" in dataset.problems[0]


# Label maps


def labels() -> np.ndarray:
    """Two objects, 1 and 3."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:8, 3:9] = 1
    labels[10:15, 12:25] = 3
    return labels


COLOURS = np.array([[0, 0, 0], [0, 9, 0], [0, 9, 9], [9, 0, 0]], np.uint8)
WITH_ALPHA = np.dstack([COLOURS[np.maximum(labels(), 2)], np.where(labels() > 0, 255, 0)]).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "picture"),
    [
        ("P", palette_image(labels())),
        ("L", Image.fromarray(labels())),
        ("I;16", Image.fromarray(labels().astype(np.uint16) * 20000)),
        ("RGB", Image.fromarray(COLOURS[labels()])),
        ("RGBA", Image.fromarray(np.dstack([COLOURS[labels()], np.full_like(labels(), 255)]))),
    ],
)
def test_a_label_map_of_every_kind(tmp_path: Path, mode: str, picture: Image.Image) -> None:
    assert picture.mode == mode
    photo(tmp_path / "a.jpg")
    picture.save(tmp_path / "a_mask.png")
    dataset = open_dataset(tmp_path)
    assert (len(dataset), dataset.problems) == (1, [])
    np.testing.assert_array_equal(dataset[0].masks, [labels() == 1, labels() == 3])


def test_what_is_transparent_is_background_and_two_tones_are_one_object(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    Image.fromarray(WITH_ALPHA).save(tmp_path / "a_mask.png")
    photo(tmp_path / "b.jpg")
    Image.fromarray(labels() == 1).save(tmp_path / "b_mask.png")
    with_alpha, two_tones = open_dataset(tmp_path).readable()
    np.testing.assert_array_equal(with_alpha.masks, [labels() == 1, labels() == 3])
    np.testing.assert_array_equal(two_tones.masks, [labels() == 1])


def names(dataset: Dataset) -> list[str]:
    return [entry.name for entry in dataset.entries]


def test_pairs_in_one_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "c.jpg", "lone.jpg"):
        photo(tmp_path / name)
    for name in ("a_mask.png", "b_labels.png", "c.jpg.labels.png", "d_mask.png"):
        palette_image(labels()).save(tmp_path / name)
    photo(tmp_path / "c.jpg.overlay.png")  # as `sam2-jax generate` writes it
    dataset = open_dataset(tmp_path)
    assert names(dataset) == ["a.jpg", "b.png", "c.jpg"]
    assert dataset.problems == [
        f"lone.jpg was left out: it needs one label map in {tmp_path}, lone.jpg.labels.png or lone_mask.png "
        "or lone_labels.png; got []",
        f"label map d_mask.png was left out: it has no photo in {tmp_path}",
    ]


@pytest.mark.parametrize("given", [False, True])
def test_pairs_in_two_folders(tmp_path: Path, given: bool) -> None:
    photos = tmp_path / ("photos" if given else "images")
    maps = tmp_path / "masks"
    maps.mkdir()
    for name in ("a.jpg", "b.png", "c.jpg"):
        photo(photos / name)
    for name in ("a.png", "b.PNG", "c.jpg.labels.png"):
        palette_image(labels()).save(maps / name)
    data, images = (maps, photos) if given else (tmp_path, None)
    dataset = open_dataset(data, images)
    assert (names(dataset), dataset.problems) == (["a.jpg", "b.png", "c.jpg"], [])
    assert len(list(dataset.readable())) == 3


def test_pairs_that_are_none(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "c.jpg", "good.jpg"):
        photo(tmp_path / name)
    for name in ("a_mask.png", "b_mask.png", "b_labels.png", "good_mask.png"):
        palette_image(labels()).save(tmp_path / name)
    palette_image(labels()[:10]).save(tmp_path / "c_mask.png")
    dataset = open_dataset(tmp_path)
    assert names(dataset) == ["a.jpg", "good.jpg"]
    assert len(dataset.problems) == 3
    assert "a.png was left out: its label map a_mask.png is that of a.jpg, too" in dataset.problems[0]
    assert "got ['b_mask.png', 'b_labels.png']" in dataset.problems[1]
    assert "it is 30 x 20 pixels, its label map c_mask.png 30 x 10 pixels" in dataset.problems[2]


def test_a_photo_with_two_label_maps_of_one_name_is_left_out_and_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / "images" / name)
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "a.PNG", "b.png", "c.png", "c.PNG"):
        palette_image(labels()).save(tmp_path / "masks" / name)
    dataset = open_dataset(tmp_path)
    assert names(dataset) == ["b.jpg"]
    assert "got ['a.PNG', 'a.png']" in dataset.problems[0]
    assert [problem.split(" was")[0] for problem in dataset.problems[1:]] == [
        "label map c.PNG",
        "label map c.png",
    ]


def test_what_generate_writes_is_read_back_both_ways(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    masks = [labels() > 0, labels() == 3]  # one on the other
    box = np.zeros(4, np.int64)
    found = [GeneratedMask(encode_rle(mask), box, 0.9, (4.0, 4.0), 0.9, (0, 0, 1, 1)) for mask in masks]
    generator: Any = AutomaticMaskGenerator(model_of(smallest_config()))
    generator.find_each = lambda photos, **_: (found for _ in photos)
    annotate(generator, [photo(photos / "a.jpg")], out, progress=False)
    dataset = open_dataset(out, photos)
    assert (names(dataset), dataset.problems) == (["a.jpg"], [])
    np.testing.assert_array_equal(dataset[0].masks, [labels() == 1, labels() == 3])
    dataset = open_dataset(out / "annotations.json", photos)
    assert (names(dataset), dataset.problems) == (["a.jpg"], [])
    np.testing.assert_array_equal(dataset[0].masks, masks)


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "must have 1 to 2000 values besides 0"),
        (np.arange(HEIGHT * WIDTH * 4, dtype=np.uint16).reshape(40, 60), "got 2399: is it empty, a photo"),
        (np.zeros((HEIGHT, WIDTH, 2), np.uint8), "grey, RGB or have a palette; got mode LA"),
    ],
)
def test_a_label_map_that_is_none(tmp_path: Path, picture: np.ndarray, problem: str) -> None:
    photo(tmp_path / "a.jpg", *picture.shape[:2])
    Image.fromarray(picture).save(tmp_path / "a_mask.png")
    with pytest.raises(ValueError, match="a.jpg cannot be used: label map") as error:
        open_dataset(tmp_path)[0]
    assert problem in str(error.value)


def disc(radius: float = 150, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A white disc on black, without grey."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in size))
    return Image.fromarray(((x**2 + y**2 < radius**2) * 255).astype(np.uint8))


def smoothed(kind: str) -> Image.Image:
    """Label maps of one or two objects that were smoothed, and a photo."""
    half = (320, 240)
    colours = Image.composite(
        Image.new("RGB", (640, 480), (200, 30, 90)), Image.new("RGB", (640, 480)), disc()
    )
    colours.paste((10, 220, 40), (0, 0, 90, 90))
    two = Image.fromarray(np.where(np.asarray(disc()), 200, 0).astype(np.uint8))
    two.paste(100, (0, 0, 90, 90))
    return {
        "bilinear": disc().resize(half, Image.Resampling.BILINEAR),
        "lanczos": disc().resize(half, Image.Resampling.LANCZOS),
        "enlarged": disc(40, (160, 120)).resize(half, Image.Resampling.BILINEAR),
        "few levels": disc().resize(half, Image.Resampling.BOX),
        "blurred": disc().filter(ImageFilter.GaussianBlur(6)),
        "colours": colours.resize(half, Image.Resampling.BILINEAR),
        "two objects": two.resize(half, Image.Resampling.BILINEAR),
        "photo": Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["bilinear", "lanczos", "enlarged", "few levels", "blurred", "colours", "two objects", "photo"]
)
def test_a_label_map_that_was_smoothed_is_not_taken_for_hundreds_of_objects(
    tmp_path: Path, kind: str
) -> None:
    picture = smoothed(kind)
    photo(tmp_path / "a.jpg", *picture.size[::-1])
    picture.save(tmp_path / "a_mask.png")
    with pytest.raises(
        ValueError, match=r"looks smoothed at its edges .*PNG without smoothing; .*one_object"
    ):
        open_dataset(tmp_path)[0]


def test_a_smoothed_mask_of_one_object_is_read_as_one(tmp_path: Path) -> None:
    picture = disc().resize((320, 240), Image.Resampling.BILINEAR)
    photo(tmp_path / "a.jpg", 240, 320)
    dark = picture.point([value // 40 for value in range(256)])
    for saved in (picture, picture.convert("RGB"), picture.convert("1", dither=Image.Dither.NONE), dark):
        saved.save(tmp_path / "a_mask.png")
        masks = open_dataset(tmp_path, one_object=True)[0].masks
        assert len(masks) == 1
        assert masks[0].sum() == pytest.approx(np.pi * 75**2, rel=0.01)
    with pytest.raises(ValueError, match="one_object must be True or False; got 'yes'"):
        open_dataset(tmp_path, one_object="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one_object is of label maps, in a folder"):
        open_dataset(coco(tmp_path, [annotation()]), one_object=True)


def test_what_masks_were_read_with_tells_one_dataset_from_another(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 2)
    kinds = [{}, {"min_area": 2}, {"one_object": True}]
    assert len({open_dataset(folder, **kind).fingerprint() for kind in kinds}) == len(kinds)


def test_many_small_and_thin_objects_are_no_smoothing(tmp_path: Path) -> None:
    """Cells of two pixels, touching pairs, a frame, a line across another object, a stack of slices."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[0], values[-1] = 40, 41
    values[2:4, 1:28:3], values[2:4, 2:29:3] = np.arange(1, 10), np.arange(11, 20)
    values[6:16, 4:20], values[8, 4:20] = 30, 25
    values[17:19, 2:12], values[17:19, 12:22], values[17:19, 22:28] = 50, 51, 52
    photo(tmp_path / "a.jpg")
    Image.fromarray(values).save(tmp_path / "a_mask.png")
    assert len(open_dataset(tmp_path)[0].masks) == 25


def test_small_objects_of_a_label_map_are_left_out(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    palette_image(labels()).save(tmp_path / "a_mask.png")
    assert [mask.sum() for mask in open_dataset(tmp_path, min_area=36)[0].masks] == [36, 65]
    assert [mask.sum() for mask in open_dataset(tmp_path, min_area=37)[0].masks] == [65]
    with pytest.raises(ValueError, match="each an object of 66 pixels or more; got 0"):
        open_dataset(tmp_path, min_area=66)[0]


# Nothing to train on


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "lists of images and annotations; got []"),
        (b'{"images": [], "licenses": []}', "lists of images and annotations; got images, licenses"),
        (b'{"images": {}, "annotations": []}', "lists of images and annotations"),
        (b'{"images": [], "annotations": []}', "nothing to train on. It must be a COCO JSON"),
        (
            b'{"images": [7], "annotations": [null]}',
            "nothing to train on (2 problems; the first: image number 1",
        ),
    ],
)
def test_a_file_without_annotations(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "coco.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="coco.json") as error:
        open_dataset(path)
    assert message in str(error.value)


def test_only_crowds_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="nothing to train on; left out: 1 annotations with iscrowd 1, .*; left out: 1 pict"
    ):
        open_dataset(coco(tmp_path, [annotation(iscrowd=1)]))


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data must be a COCO JSON file or a folder; there is no .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="data must be"):
        open_dataset(tmp_path / ("n" * 5000))
    with pytest.raises(ValueError, match="data must be a path; got 3"):
        open_dataset(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images must be a path; got \\[\\]"):
        open_dataset(tmp_path, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has nothing to train on. It must be"):
        open_dataset(tmp_path)
    path = coco(tmp_path, [annotation()])
    with pytest.raises(ValueError, match="images must be the folder of the pictures; there is no folder"):
        open_dataset(path, path)
    for min_area in (0, 1.5, True):
        with pytest.raises(ValueError, match="min_area must be a whole number of at least 1; got"):
            open_dataset(path, min_area=min_area)  # type: ignore[arg-type]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = coco(tmp_path, [annotation()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(open_dataset(path)) == 1


def test_damage_of_every_kind_is_never_another_error(tmp_path: Path) -> None:
    """Replace each value of a good file, at any depth, by values of every type."""
    good: dict[str, Any] = {
        "images": [image(1), image(2, file_name="1.png")],
        "annotations": [
            annotation(1),
            annotation(2, segmentation=encode_rle(a_mask(), compressed=True)),
            annotation(3, image_id=2, segmentation=encode_rle(a_mask())),
        ],
    }
    path = coco(tmp_path, [])
    values = [None, True, -1, 0, 10**25, 1e999, float("nan"), "", "x", "\0\ud800", [], [[]], [[[1]]], {}]

    def places(tree: Any) -> Any:
        for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))[:9]:
            yield tree, key
            if isinstance(value, (dict, list)):
                yield from places(value)

    opened = 0
    for tree, key in places(good):
        kept = tree[key]
        for value in values:
            tree[key] = value
            path.write_text(json.dumps(good))
            try:
                dataset = open_dataset(path)
                masks = [example.masks for example in dataset.readable()]
            except ValueError:
                continue
            opened += 1
            assert all(mask.any(axis=(1, 2)).all() and mask.shape[1:] == (HEIGHT, WIDTH) for mask in masks)
        tree[key] = kept
    assert opened > 500


# Reading


def folder_of(folder: Path, count: int) -> Path:
    for i in range(count):
        photo(folder / f"{i}.png", value=i)
        palette_image(labels()).save(folder / f"{i}_mask.png")
    return folder


def test_a_picture_is_read_when_asked_for(tmp_path: Path) -> None:
    dataset = open_dataset(folder_of(tmp_path, 2))
    photo(tmp_path / "1.png", value=200)
    assert dataset[-1].image[0, 0, 0] == 200
    (tmp_path / "1.png").unlink()
    with pytest.raises(ValueError, match="1.png cannot be used: there is no picture"):
        dataset[1]
    photo(tmp_path / "1.png", height=9)
    with pytest.raises(
        ValueError, match="1.png cannot be used: it is 30 x 9 pixels, its masks 30 x 20 pixels"
    ):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[2]


def test_examples_go_on_in_another_order_each_epoch(tmp_path: Path) -> None:
    dataset = open_dataset(folder_of(tmp_path, 6))

    def first_epochs(seed: int) -> list[list[str]]:
        stream = Shuffled(dataset, seed)
        return [[stream.example(6 * epoch + i).name for i in range(6)] for epoch in range(3)]

    epochs = first_epochs(0)
    assert all(sorted(epoch) == names(dataset) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs == first_epochs(0)
    assert epochs != first_epochs(1)


def test_a_damaged_picture_is_warned_of_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    damage(tmp_path / "1.png")
    dataset = open_dataset(tmp_path)
    assert (len(dataset), dataset.problems) == (3, [])
    with pytest.raises(ValueError, match="1.png cannot be used: .*truncated or broken"):
        dataset[1]
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="1.png cannot be used: .*truncated or broken") as warned:
        seen = [example.name for _ in range(4) for example in dataset.readable(rng.permutation(3).tolist())]
    assert sorted(seen) == ["0.png"] * 4 + ["2.png"] * 4
    assert len(warned) == len(dataset.problems) == 1
    assert [example.name for example in dataset.readable([2, 1, 0])] == ["2.png", "0.png"]


def test_an_epoch_without_any_picture_ends(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    damage(tmp_path / "0.png")
    damage(tmp_path / "1.png")
    stream = Shuffled(open_dataset(tmp_path), seed=0)
    with (
        pytest.warns(UserWarning, match="cannot be used"),
        pytest.raises(ValueError, match="no picture of the dataset can be used .2 problems; the first: "),
    ):
        stream.example(0)


@pytest.mark.parametrize(("held_out", "count"), [(0.3, 3), (0.001, 1), (0.999, 9)])
def test_split(tmp_path: Path, held_out: float, count: int) -> None:
    dataset = open_dataset(folder_of(tmp_path, 10))
    train, test = split(dataset, held_out, seed=1)
    assert len(test) == count
    assert sorted(names(train) + names(test)) == names(dataset)
    assert names(test) == sorted(names(test))
    assert test[0].name == names(test)[0]
    again = split(dataset, held_out, seed=1)[1]
    assert names(again) == names(test)
    assert any(names(split(dataset, held_out, seed)[1]) != names(test) for seed in range(5))


def test_a_picture_listed_twice_is_on_one_side_of_a_split(tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{i}.png").name for i in range(1, 5)]
    images = [image(i, file_name=files[i % 4]) for i in range(12)]
    dataset = open_dataset(coco(tmp_path, [annotation(i, image_id=i) for i in range(12)], images))
    for seed in range(4):
        train, test = split(dataset, 0.5, seed)
        assert (len(train), len(test)) == (6, 6)
        assert not set(names(train)) & set(names(test))
    once = open_dataset(coco(tmp_path, [annotation(i, image_id=i) for i in (0, 4)], images))
    with pytest.raises(ValueError, match="must be two pictures or videos or more; there is 1"):
        split(once, 0.5)


def test_split_needs_something_on_either_side(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be two pictures or videos or more; there is 1"):
        split(open_dataset(folder_of(tmp_path, 1)), 0.5)
    dataset = open_dataset(folder_of(tmp_path, 2))
    for held_out in (0, 1, -0.5, float("nan"), "half"):
        with pytest.raises(ValueError, match="held_out must be a number above 0 and less than 1; got"):
            split(dataset, held_out)  # type: ignore[arg-type]
    for seed in (-1, 0.5, None):
        with pytest.raises(ValueError, match="seed must be a whole number of at least 0; got"):
            split(dataset, 0.5, seed)  # type: ignore[arg-type]


def test_the_parts_of_a_split_say_what_is_damaged_once(tmp_path: Path) -> None:
    folder_of(tmp_path, 4)
    dataset = open_dataset(tmp_path)
    train, test = split(dataset, 0.5)
    damage(tmp_path / test.entries[0].name)
    with pytest.warns(UserWarning, match="cannot be used"):
        assert len(list(test.readable())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(dataset.readable())) == 3
    assert train.problems == test.problems == dataset.problems
    assert len(dataset.problems) == 1
