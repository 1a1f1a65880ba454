"""Pictures of results."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sam2_jax.processing.drawing import (
    COLOURS,
    Drawn,
    contact_sheet,
    label_map,
    overlay,
    palette,
    palette_image,
)


def test_overlay_tints_inside_outlines_the_edge_and_leaves_the_rest() -> None:
    photo = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[20:35, 10:50] = True
    image = np.asarray(overlay(photo, [Drawn(mask, points=[(55, 5)], labels=[0])]))
    np.testing.assert_array_equal(image[20, 30], COLOURS[0])
    np.testing.assert_allclose(image[28, 30], 0.55 * 200 + 0.45 * np.array(COLOURS[0]), atol=1)
    np.testing.assert_array_equal(image[10, 10], photo[10, 10])
    assert (image[5, 50:60] != 200).any()  # the click is marked
    assert (photo == 200).all()


def test_the_pictures_border_is_no_outline() -> None:
    image = np.asarray(overlay(np.zeros((20, 30, 3), np.uint8), [Drawn(np.ones((20, 30), bool))]))
    assert (image == image[10, 10]).all()


def test_overlay_draws_small_objects_above_large_ones() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    large, small = np.ones((40, 60), bool), np.zeros((40, 60), bool)
    small[10:20, 10:20] = True
    first = np.asarray(overlay(photo, [Drawn(small), Drawn(large)]))
    np.testing.assert_array_equal(first[10, 10], COLOURS[0])


def test_overlay_of_an_empty_mask_changes_nothing() -> None:
    photo = np.full((40, 60, 3), 7, np.uint8)
    np.testing.assert_array_equal(overlay(photo, [Drawn(np.zeros((40, 60), bool), "empty")]), photo)


def test_captions_cover_neither_small_masks_nor_marks_nor_each_other() -> None:
    photo = np.full((300, 400, 3), 90, np.uint8)
    rows, columns = np.indices(photo.shape[:2])
    places = [(8, 8), (40, 60), (80, 75), (393, 8), (395, 294), (6, 290), (200, 150), (215, 170)]
    masks = [(columns - x) ** 2 + (rows - y) ** 2 <= 16 for x, y in places]
    masks.append(rows > 120)  # a large one beneath, which any caption may cover
    points = [[place] for place in places] + [[]]
    plain = [Drawn(mask, "", click, [1] * len(click)) for mask, click in zip(masks, points, strict=True)]
    named = [replace(drawn, caption=f"{i} 0.97") for i, drawn in enumerate(plain)]
    image, without = (np.asarray(overlay(photo, drawn)) for drawn in (named, plain))
    written = (image != without).any(axis=-1)
    assert not (written & np.any(masks[:-1], axis=0)).any()
    marks = (without == (34, 160, 60)).all(axis=-1) | (without == 255).all(axis=-1)
    assert marks.any()
    assert not (written & marks).any()
    labels, _ = ndimage.label(written, np.ones((3, 3)))
    boxes = [region for region in ndimage.find_objects(labels) if labels[region].size > 100]
    assert len(boxes) == len(named)  # each stands by itself
    one = np.asarray(overlay(photo, named[:1]))
    assert (one != np.asarray(overlay(photo, plain[:1]))).sum() > 100


def test_many_objects_have_colours_of_their_own() -> None:
    masks = np.eye(20, dtype=bool).repeat(3, 0).repeat(3, 1)
    masks = [masks[3 * i : 3 * i + 3].repeat(20, 0) for i in range(20)]
    image = np.asarray(overlay(np.zeros((60, 60, 3), np.uint8), [Drawn(mask) for mask in masks]))
    assert len(np.unique(image[30, ::3], axis=0)) == 20


def test_a_contact_sheet_of_one_row_leaves_equal_pictures_as_they_are() -> None:
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20)]
    sheet = np.asarray(contact_sheet(pictures, columns=2, size=None, gap=2))
    np.testing.assert_array_equal(sheet, np.hstack([pictures[0], np.full((4, 2, 3), 255), pictures[1]]))


def test_a_contact_sheet_takes_pictures_of_any_kind_and_centres_them() -> None:
    pictures = [Image.new("L", (40, 20), 5), np.zeros((9, 9), np.uint8), Image.new("RGBA", (10, 80))]
    sheet = contact_sheet(pictures, size=20, gap=4)
    assert sheet.mode == "RGB"
    assert sheet.size == (20 + 4 + 9, 10 + 4 + 20)  # columns of 20 and 9, rows of 10 and 20
    assert np.asarray(sheet)[0, 24:].tolist() == [[0, 0, 0]] * 9
    assert (np.asarray(sheet)[14:] == 255).all()  # transparent is white
    assert pictures[0].size == (40, 20)


def test_captions_stand_below_their_pictures() -> None:
    picture = np.full((60, 100, 3), 90, np.uint8)
    plain, named = contact_sheet([picture]), contact_sheet([picture], captions=["caption " * 20])
    assert named.width == plain.width
    below = np.asarray(named)[60:]
    assert 10 < len(below) < 30
    assert (below < 128).any()
    assert (below[:, [0, -1]] > 200).all()
    np.testing.assert_array_equal(np.asarray(named)[:60], picture)


def test_what_makes_no_contact_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="images must hold at least one picture"):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns must be at least 1; got 0"):
        contact_sheet([np.zeros((2, 2), np.uint8)], columns=0)
    with pytest.raises(ValueError, match="captions must be one for each of 1 images; got 2"):
        contact_sheet([np.zeros((2, 2), np.uint8)], captions=["a", "b"])


def test_a_label_map_has_small_objects_above_large_ones() -> None:
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 2:4, 2:4] = masks[1, 1:5, 1:7] = masks[2, 3:5, 3:5] = True
    labels = label_map(masks)
    assert labels.dtype == np.uint8
    assert labels[2, 2] == 1
    assert labels[3, 3] == 3  # as large as the first, but later
    assert labels[1, 1] == 2
    assert labels[0, 0] == 0
    assert label_map(np.zeros((0, 6, 8))).tolist() == [[0] * 8] * 6


def test_many_objects_need_16_bits() -> None:
    masks = np.eye(256, dtype=bool)[:, None]
    labels = label_map(masks)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [list(range(1, 257))]
    with pytest.raises(ValueError, match=r"masks must be \[objects, height, width\], at most 65535"):
        label_map(masks[0])


def test_a_palette_picture_reads_back_as_its_labels() -> None:
    labels = np.arange(256, dtype=np.int64).reshape(16, 16)
    file = io.BytesIO()
    palette_image(labels).save(file, "PNG")
    image = Image.open(file)
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 256
    assert colours[0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(colours[1:8], COLOURS)


def test_colours_are_well_apart() -> None:
    colours = palette().astype(int)
    distances = np.abs(colours[:, None] - colours).max(axis=-1) + 256 * np.eye(256, dtype=int)
    assert distances[:30, :30].min() >= 50
    assert distances.min() >= 17


def test_labels_beyond_the_palette_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels 0 to 255; got 0 to 300: .* Image.fromarray\(labels"):
        palette_image(np.array([[0, 300]], np.uint16))
    with pytest.raises(ValueError, match=r"labels must be integers \[height, width\]; got float64 \(2, 2\)"):
        palette_image(np.zeros((2, 2)))
