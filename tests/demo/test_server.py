"""The demo's server by itself: its answers equal the Python API's, and nothing that is sent breaks it."""

import io
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo.serving import LOOPBACK, served
from PIL import Image

from sam2_jax import AutomaticMaskGenerator, Sam2Model, Sam2VideoModel
from sam2_jax.checkpoint.embedded import SAMPLE_PICTURE
from sam2_jax.clips.reading import open_clip
from sam2_jax.clips.sample import SampleFrames
from sam2_jax.clips.tracking import Passes, Prompt, tracked
from sam2_jax.demo.exports import export, read_exported
from sam2_jax.demo.media import Media
from sam2_jax.processing.rle import decode_rle, encode_rle

httpx = pytest.importorskip("httpx", reason="needs httpx: pip install httpx")
for _needed in ("starlette", "uvicorn"):
    pytest.importorskip(_needed, reason=f"needs {_needed}: pip install 'sam2_jax[demo]'")

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")

SIDE = 128
SAMPLE = np.array(Image.open(SAMPLE_PICTURE).convert("RGB"))


@pytest.fixture(scope="module")
def model(quick_compilation_of_module: None) -> Sam2Model:
    """The embedded model for small pictures, which compiles and runs in little time."""
    return Sam2Model.from_pretrained("embedded").with_image_size(SIDE)


@pytest.fixture(scope="module")
def video_model(quick_compilation_of_module: None) -> Sam2VideoModel:
    """The same for clips."""
    return Sam2VideoModel.from_pretrained("embedded").with_image_size(SIDE)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of the sample, as an animation."""
    path = tmp_path_factory.mktemp("clip") / "clip.webp"
    first, *others = (Image.fromarray(frame) for frame in SampleFrames(SAMPLE_PICTURE).read(range(0, 12, 3)))
    first.save(path, "WEBP", save_all=True, append_images=others, lossless=True, duration=100)
    return path


@pytest.fixture(scope="module")
def client(model: Sam2Model, video_model: Sam2VideoModel, clip_file: Path) -> Iterator[Any]:
    """Speaks to a server with the sample picture and a clip."""
    with (
        served(model, lambda: video_model, SAMPLE_PICTURE, clip_file, bytes=2_000_000) as (address, _),
        httpx.Client(base_url=address, timeout=120) as speaking,
    ):
        yield speaking


@pytest.fixture(scope="module")
def picture(client: Any) -> str:
    """Where requests about the sample picture go."""
    return f"/api/media/{client.get('/api/state').json()['opened'][0]['id']}"


@pytest.fixture(scope="module")
def clip(client: Any) -> str:
    """The same of the clip."""
    return f"/api/media/{client.get('/api/state').json()['opened'][1]['id']}"


def _lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def _refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    (name, sentence), *others = answer.json().items()
    assert (name, others) == ("error", [])
    for word in words:
        assert word in sentence


def _png(image: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


# What is asked, and what the Python API says ----------------------------------------------------------------


def test_the_page_and_its_files_come_with_strict_headers(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "html" in page.headers["content-type"]
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "unsafe" not in policy
    assert client.get("/static/main.js").headers["x-content-type-options"] == "nosniff"
    _refused(client.get("/static/nothing.js"), 404)
    _refused(client.get("/nowhere"), 404)
    _refused(client.get("/static/../server.py"), 404)
    _refused(client.get("/static/%2e%2e/server.py"), 404)


def test_state_says_what_there_is(client: Any) -> None:
    state = client.get("/api/state").json()
    assert state["model"] == "embedded"
    assert state["maximum_bytes"] == 2_000_000
    assert state["maximum_pixels"] > 10**7
    kinds = [(each["kind"], each["width"], each["height"], each["frames"]) for each in state["opened"]]
    assert kinds == [("picture", 512, 512, 1), ("video", 256, 256, 4)]
    for medium in state["opened"]:
        assert client.get(f"/api/media/{medium['id']}").json() == medium
    assert state["opened"][1]["rate"] == 10


def test_frames_are_what_the_medium_shows(client: Any, clip: str, clip_file: Path) -> None:
    with open_clip(clip_file) as frames:
        for t in (2, 0, 3, 1):
            answer = client.get(f"{clip}/frames/{t}")
            assert answer.headers["content-type"] == "image/jpeg"
            assert "immutable" in answer.headers["cache-control"]
            shown = np.array(Image.open(io.BytesIO(answer.content)))
            assert np.abs(shown.astype(int) - frames[t]).mean() < 3
    _refused(client.get(f"{clip}/frames/4"), 400, "0 to 3", "got 4")
    _refused(client.get(f"{clip}/frames/-1"), 404)


def test_clicks_give_the_masks_of_the_python_api(client: Any, picture: str, model: Sam2Model) -> None:
    session = model.predictor(SAMPLE_PICTURE)
    first = session.click(258, 298)
    answer = client.post(f"{picture}/predict", json={"points": [[258, 298]], "labels": [1]}).json()
    assert len(answer["masks"]) == len(answer["keys"]) == 3
    for found, mask, score in zip(answer["masks"], first.masks, first.scores, strict=True):
        assert found == {"mask": encode_rle(mask, compressed=True), "score": float(score)}
    assert answer["best"] == first.best
    assert answer["milliseconds"] > 0

    second = session.click(318, 448, positive=False)
    clicks = {"points": [[258, 298], [318, 448]], "labels": [1, 0]}
    refined = client.post(
        f"{picture}/predict", json={**clicks, "previous": answer["keys"][answer["best"]]}
    ).json()
    (found,) = refined["masks"]
    assert found["mask"] == encode_rle(second.mask, compressed=True)
    # The earlier mask counts; a key that nobody knows is as none.
    alone = client.post(f"{picture}/predict", json=clicks).json()["masks"][0]
    unknown = client.post(f"{picture}/predict", json={**clicks, "previous": "unknown"}).json()["masks"][0]
    assert alone == unknown
    assert alone["score"] != found["score"]
    # The page sends the mask as well: the key's is refined as long as it is kept, and else that.
    mask = answer["masks"][answer["best"]]["mask"]
    for key, same in ((answer["keys"][answer["best"]], refined), ("forgotten", {"previous": mask})):
        given = client.post(f"{picture}/predict", json={**clicks, "previous": {**mask, "key": key}}).json()
        if same is not refined:
            same = client.post(f"{picture}/predict", json={**clicks, **same}).json()
            assert same["masks"] != [alone]
        assert given["masks"] == same["masks"]


def test_a_box_and_what_is_wanted_of_it(client: Any, picture: str, model: Sam2Model) -> None:
    session = model.predictor(SAMPLE_PICTURE)
    box = (378, 76, 480, 202)
    (found,) = client.post(f"{picture}/predict", json={"box": box}).json()["masks"]
    assert found["mask"] == encode_rle(session.set_box(box).mask, compressed=True)
    three = client.post(f"{picture}/predict", json={"box": box, "multimask": True}).json()["masks"]
    assert len(three) == 3


def test_a_mask_can_be_refined(client: Any, picture: str, model: Sam2Model) -> None:
    session = model.predictor(SAMPLE_PICTURE)
    mask = session.click(258, 298).mask
    given = {"points": [[318, 448]], "labels": [0], "previous": encode_rle(mask, compressed=True)}
    (found,) = client.post(f"{picture}/predict", json=given).json()["masks"]
    logits = model.processor(original_sizes=[mask.shape], input_masks=[[mask]])["input_masks"][0, 0]
    expected = session.predict([(318, 448)], [0], mask=logits, multimask_output=False)
    assert found["mask"] == encode_rle(expected.mask, compressed=True)


def test_everything_comes_with_progress(client: Any, picture: str, model: Sam2Model) -> None:
    *progress, last = _lines(client.post(f"{picture}/everything", json={"points_per_side": 9}))
    parts = [line["progress"] for line in progress]
    assert parts == sorted(parts)
    assert len(parts) > 1
    assert parts[-1] == 1
    found = AutomaticMaskGenerator(model, points_per_side=9, output_mode="coco_rle").generate(SAMPLE_PICTURE)
    found.sort(key=lambda record: -record["predicted_iou"])
    assert last["masks"] == [
        {"mask": record["segmentation"], "score": record["predicted_iou"]} for record in found
    ]
    _refused(client.post(f"{picture}/everything", json={"points_per_side": 0}), 400, "points_per_side")


OBJECTS = [
    {"id": 3, "prompts": [{"frame": 1, "points": [[100, 130]], "labels": [1]}]},
    {"id": 7, "prompts": [{"frame": 2, "box": [120, 20, 220, 90]}]},
]


@pytest.fixture(scope="module")
def tracks(client: Any, clip: str) -> list[dict[str, Any]]:
    """Two objects tracked both ways."""
    return _lines(client.post(f"{clip}/track", json={"objects": OBJECTS, "direction": "both"}))


def test_tracks_equal_the_python_apis(
    tracks: list[dict[str, Any]], video_model: Sam2VideoModel, clip_file: Path
) -> None:
    prompts = [Prompt(1, 3, ((100, 130),), (1,)), Prompt(2, 7, box=(120, 20, 220, 90))]
    assert [(line["frame"], line["done"], line["of"]) for line in tracks] == [
        *((1, 1, 5), (2, 2, 5), (3, 3, 5)),
        *((1, 4, 5), (0, 5, 5)),
    ]
    with open_clip(clip_file) as frames:
        tracker = video_model.video(frames, keep="none")
        rows = list(tracked(tracker, frames, Passes(prompts, len(frames), "both")))
    for line, row in zip(tracks, rows, strict=True):
        found = {each["id"]: (each["mask"], each["score"]) for each in line["objects"]}
        assert found == {each.object_id: (each.rle, each.score) for each in row.found.tracks}


def test_masks_are_prompts_and_one_frame_is_a_clip(client: Any, picture: str) -> None:
    mask = np.zeros((512, 512), bool)
    mask[100:200, 100:300] = True
    objects = [{"id": 1, "prompts": [{"mask": encode_rle(mask, compressed=True)}]}]
    (line,) = _lines(client.post(f"{picture}/track", json={"objects": objects}))
    (found,) = line["objects"]
    drawn = decode_rle(found["mask"])
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9


# Files ------------------------------------------------------------------------------------------------------


def _exported(client: Any, medium: str, format_: str, objects: Any) -> tuple[str, bytes]:
    answer = client.post(f"{medium}/export", json={"format": format_, "objects": objects})
    assert answer.status_code == 200, answer.text
    name = answer.headers["content-disposition"].partition('filename="')[2].rstrip('"')
    return name, answer.content


@pytest.fixture(scope="module")
def found(tracks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tracked objects as the page sends them to be exported."""
    masks: dict[int, dict[str, Any]] = {3: {}, 7: {}}
    for line in tracks:
        for each in line["objects"]:
            masks[each["id"]][str(line["frame"])] = each["mask"]
    names = {3: "truck, é", 7: "plate"}
    return [{"id": id_, "name": names[id_], "color": "#ff8000", "masks": of} for id_, of in masks.items()]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_coco_is_read_by_pycocotools(client: Any, clip: str, found: Any, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    name, content = _exported(client, clip, "coco", found)
    assert name == "clip_coco.json"
    (tmp_path / name).write_bytes(content)
    read = coco.COCO(str(tmp_path / name))
    assert len(read.imgs) == 4
    assert [each["name"] for each in read.cats.values()] == ["truck, é", "plate"]
    for annotation in read.anns.values():
        (of,) = (each for each in found if each["id"] == annotation["object_id"])
        expected = decode_rle(of["masks"][str(annotation["image_id"] - 1)])
        assert (read.annToMask(annotation) == expected).all()
        assert annotation["area"] == expected.sum()


def test_the_outputs_of_track_are_there(client: Any, clip: str, found: Any) -> None:
    name, content = _exported(client, clip, "vis", found)
    vis = json.loads(content)
    assert name == "clip_tracks.json"
    assert [each["id"] for each in vis["annotations"]] == [3, 7]
    assert vis["annotations"][1]["segmentations"][3] == found[1]["masks"]["3"]

    _, content = _exported(client, clip, "labels", found)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [f"{t:05}.png" for t in range(4)]
        labels = np.array(Image.open(io.BytesIO(archive.read("00003.png"))))
    assert set(np.unique(labels)) <= {0, 3, 7}
    assert (labels == 7).any()

    name, content = _exported(client, clip, "video", found)
    assert name in ("clip_overlay.mp4", "clip_overlay.gif")
    assert len(content) > 1000


def test_masks_and_overlays_of_a_picture(client: Any, picture: str) -> None:
    masks = np.zeros((2, 512, 512), bool)
    masks[0, 50:100, 60:90] = masks[1, 300:400, 300:500] = True
    objects = [
        {"id": i, "name": f"no {i}", "color": "#00ff00", "masks": {"0": encode_rle(mask, compressed=True)}}
        for i, mask in enumerate(masks, 1)
    ]
    _, content = _exported(client, picture, "masks", objects)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["001/sample.png", "002/sample.png"]
        for name, mask in zip(archive.namelist(), masks, strict=True):
            assert (np.array(Image.open(io.BytesIO(archive.read(name)))) == mask).all()
    name, content = _exported(client, picture, "labels", objects)
    assert name == "sample_labels.png"
    assert (np.array(Image.open(io.BytesIO(content))) == masks[0] + 2 * masks[1]).all()
    name, content = _exported(client, picture, "overlay", objects)
    assert name == "sample_overlay.png"
    drawn = np.array(Image.open(io.BytesIO(content)))
    assert (drawn[300, 310:490] == (0, 255, 0)).all()  # the outline, in the page's colour
    assert (drawn[10, 10] == SAMPLE[10, 10]).all()


def test_what_is_exported_is_drawn_frame_by_frame(clip_file: Path, tmp_path: Path) -> None:
    media = Media(10**6, 10**6)
    media.open(clip_file)
    (medium,) = media.opened
    mask = {"size": [256, 256], "counts": [0, 256 * 256]}
    masks = {str(t): mask for t in range(4)}
    for format_ in ("masks", "overlay", "labels", "video"):
        values = {"format": format_, "objects": [{"id": 1, "masks": masks}]}
        _, objects = read_exported(values, medium)
        (tmp_path / format_).mkdir()
        export(tmp_path / format_, medium, format_, objects)
        assert not any("mask" in vars(track) for each in objects for track in each.masks.values())
    media.close()


def test_what_cannot_be_exported(client: Any, picture: str) -> None:
    mask = encode_rle(np.ones((512, 512), bool), compressed=True)
    good = {"id": 1, "masks": {"0": mask}}
    for objects, word in (
        ([], "objects"),
        ([{"id": 1, "masks": {}}], "nothing to export"),
        ([good, good], "twice"),
        ([{**good, "id": 0}], "id"),
        ([{**good, "id": 256}], "255"),
        ([{**good, "masks": {"1": mask}}], "frame"),
        ([{**good, "masks": {"0": {"size": [2, 2], "counts": "4"}}}], "mask"),
        ([{**good, "masks": {"0": {"size": [2**30, 2**30], "counts": mask["counts"]}}}], "rle"),
        ([{**good, "color": "red"}], "color"),
        ([{**good, "name": 7}], "name"),
        ([{**good, "scores": {"0": 2}}], "score"),
    ):
        _refused(client.post(f"{picture}/export", json={"format": "masks", "objects": objects}), 400, word)
    _refused(client.post(f"{picture}/export", json={"format": "exe", "objects": [good]}), 400, "format")


# What is sent in --------------------------------------------------------------------------------------------


def test_uploads_are_upright_and_of_every_kind(client: Any, clip_file: Path) -> None:
    turned = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    exif = turned.getexif()
    exif[274] = 6
    written = io.BytesIO()
    turned.save(written, "JPEG", exif=exif)
    found = client.post("/api/media?name=a/b/phone.jpg", content=written.getvalue()).json()
    assert found["name"] == "phone.jpg"
    assert (found["kind"], found["width"], found["height"]) == ("picture", 40, 60)
    shown = Image.open(io.BytesIO(client.get(f"/api/media/{found['id']}/frames/0").content))
    assert shown.size == (40, 60)
    objects = [{"id": i, "masks": {"0": {"size": [60, 40], "counts": [0, 2400]}}} for i in (1, 2)]
    _, content = _exported(client, f"/api/media/{found['id']}", "masks", objects)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["001/phone.png", "002/phone.png"]
    grey = _png(Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)))
    assert client.post("/api/media?name=grey", content=grey).json()["kind"] == "picture"
    moving = client.post("/api/media", content=clip_file.read_bytes()).json()
    assert (moving["kind"], moving["frames"]) == ("video", 4)


@pytest.mark.parametrize("name", ["..", "a/..", "\U00020000" * 120 + ".png"], ids=["up", "to up", "long"])
def test_files_are_named_by_media_of_any_name(client: Any, name: str) -> None:
    given = _png(Image.new("RGB", (8, 8)))
    medium = client.post("/api/media", params={"name": name}, content=given).json()
    objects = [{"id": 1, "masks": {"0": {"size": [8, 8], "counts": [0, 64]}}}]
    for format_ in ("masks", "overlay", "coco", "labels", "vis", "video"):
        path = f"/api/media/{medium['id']}/export"
        answer = client.post(path, json={"format": format_, "objects": objects})
        assert answer.status_code == 200, answer.text
        assert "filename" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device"), 507, "No space left"),
        (RuntimeError("?"), 500, "its terminal"),
    ],
    ids=["full disk", "bug"],
)
def test_what_the_server_fails_at_is_a_sentence(
    client: Any, error: Exception, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Media, "take", fail)
    last = {"Connection": "close"}  # of which a server that failed thinks no more
    _refused(client.post("/api/media?name=x.png", content=b"x", headers=last), status, said)


def test_what_is_no_picture_is_said(client: Any) -> None:
    _refused(client.post("/api/media?name=x.png", content=b"no picture"), 400, "x.png", "neither")
    _refused(client.post("/api/media?name=x.png", content=b""), 400, "x.png")
    cut = SAMPLE_PICTURE.read_bytes()[:5000]
    _refused(client.post("/api/media?name=cut.png", content=cut), 400, "cut.png", "truncated or broken")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    _refused(client.post("/api/media?name=x.eps", content=program), 400, "x.eps is a program")
    long = _png(Image.new("1", (65_501, 1)))
    _refused(client.post("/api/media?name=long.png", content=long), 400, "long.png", "65,500")


def test_a_picture_of_a_thousand_million_pixels_is_refused_before_it_is_decoded(client: Any) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0)
    packed = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10**6)) + chunk(b"IEND", b"")
    start = time.monotonic()
    answer = client.post("/api/media?name=huge.png", content=b"\x89PNG\r\n\x1a\n" + packed)
    _refused(answer, 400, "huge.png", "40000 x 25000", "limit")
    assert time.monotonic() - start < 20


def test_bodies_are_bounded(client: Any, picture: str) -> None:
    _refused(client.post("/api/media?name=big", content=b"x" * 2_000_001), 413, "2,000,000 bytes")

    def endless() -> Iterator[bytes]:
        yield from [b"x" * 100_000] * 21

    _refused(client.post("/api/media?name=big", content=endless()), 413, "2,000,000 bytes")
    _refused(client.post(f"{picture}/everything", content=b" " * (2**20 + 1)), 413)


def test_prompts_that_cannot_be_meant(client: Any, picture: str, clip: str) -> None:
    for message, word in (
        ("{}", "nothing to segment"),
        ("[]", "JSON object"),
        ("", "JSON object"),
        ("[" * 100_000, "JSON object"),
        ('{"points": [[NaN, 1]]}', "NaN"),
        ('{"points": [[1e999, 1]]}', "finite"),
        ('{"points": [[513, 1]]}', "512 x 512"),
        ('{"points": [[1, 1]], "labels": [2]}', "labels"),
        ('{"points": [[1, 1]], "labels": [1, 0]}', "labels"),
        ('{"points": "here"}', "points"),
        ('{"points": [[1, 1]], "frame": 1}', "frame"),
        ('{"points": [[1, 1]], "frame": 0.5}', "frame"),
        ('{"points": [[1, 1]], "multimask": 3}', "multimask"),
        ('{"points": [[1, 1]], "previous": 3}', "previous"),
        ('{"points": [[1, 1]], "previous": {"size": [2, 2], "counts": "4"}}', "previous"),
        ('{"box": [5, 5, 1, 1]}', "box"),
        (json.dumps({"points": [[1, 1]] * 65}), "64"),
    ):
        _refused(client.post(f"{picture}/predict", content=message), 400, word)
    for objects, word in (
        (None, "objects"),
        ([1], "objects"),
        ([{"id": 1}], "prompts"),
        ([{"id": 1, "prompts": [{"frame": 0}]}], "nothing there"),
        ([{"id": 1, "prompts": [{"frame": 9, "points": [[1, 1]]}]}], "frame"),
        ([{"id": 1, "prompts": [{"points": [[1, 1]]}] * 2}], "two"),
        ([{"id": i, "prompts": [{"points": [[1, 1]]}]} for i in range(1, 66)], "64"),
    ):
        _refused(client.post(f"{clip}/track", json={"objects": objects}), 400, word)
    _refused(client.post(f"{clip}/track", json={"objects": OBJECTS, "direction": "up"}), 400, "direction")


def test_masks_that_would_fill_the_memory_are_refused(
    client: Any, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_jax.demo.messages.MOST_MASK_PIXELS", 3 * 256 * 256)
    mask = {"size": [256, 256], "counts": [0, 256 * 256]}
    objects = [{"id": i, "prompts": [{"frame": i, "mask": mask}]} for i in range(1, 4)]
    objects[0]["prompts"].append({"frame": 0, "mask": mask})
    _refused(client.post(f"{clip}/track", json={"objects": objects}), 400, "196,608 pixels in all")


def test_unknown_media_are_not_there(client: Any) -> None:
    for path in ("", "/frames/0"):
        _refused(client.get(f"/api/media/nothing{path}"), 404, "upload it again")
    for name in ("predict", "everything", "track", "export"):
        _refused(client.post(f"/api/media/nothing/{name}", json={}), 404, "upload it again")
    _refused(client.get("/api/media"), 405)


GOOD = [
    ("predict", {"frame": 0, "points": [[258, 298], [3, 4]], "labels": [1, 0], "box": None, "previous": "k"}),
    ("predict", {"box": [378, 76, 480, 202], "points": []}),
    ("everything", {"frame": 0, "points_per_side": 0}),
    ("track", {"objects": [{"id": 1, "prompts": []}], "direction": "forward"}),
    ("export", {"format": "masks", "objects": [{"id": 1, "name": "a", "color": "#000000", "masks": {}}]}),
]
ODD: list[Any] = [None, True, -1, 0, 1e308, 2**70, 0.5, "", "x" * 500, "\ud800", [], {}, [[[]]], [1]]


def _mutated(value: Any, dice: random.Random) -> Any:
    """The same with something in it exchanged, left out or doubled."""
    if dice.random() < 0.15 or not isinstance(value, (list, dict)) or not value:
        return dice.choice(ODD)
    if isinstance(value, list):
        i = dice.randrange(len(value))
        kept = [*value]
        kept[i : i + 1] = dice.choice(([], [value[i]] * 2, [_mutated(value[i], dice)]))
        return kept
    key = dice.choice(list(value))
    if dice.random() < 0.2:
        return {name: of for name, of in value.items() if name != key}
    return {**value, key: _mutated(value[key], dice)}


def test_a_thousand_mutated_messages_are_answered(client: Any, picture: str) -> None:
    dice = random.Random(5)
    statuses = set()
    for _ in range(1000):
        name, message = dice.choice(GOOD)
        for _ in range(dice.randint(1, 3)):
            message = _mutated(message, dice)
        body = bytearray(json.dumps(message).encode())
        for _ in range(dice.choice((0, 0, 1, 4))):
            body[dice.randrange(len(body))] = dice.randrange(256)
        body = body[: dice.choice((None, None, len(body) // 2))]
        answer = client.post(f"{picture}/{name}", content=bytes(body))
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 400), (name, bytes(body), answer.text)
        if answer.status_code == 400:
            _refused(answer, 400)
    assert statuses == {200, 400}
    assert client.post(f"{picture}/predict", json=GOOD[1][1]).status_code == 200


# Who may ask, and what is kept ------------------------------------------------------------------------------


def test_foreign_names_and_pages_are_refused(client: Any, picture: str) -> None:
    _refused(client.get("/api/state", headers={"Host": "evil.example"}), 403, "evil.example")
    _refused(client.get("/api/state", headers={"Host": "[::"}), 403)
    port = client.base_url.port
    assert client.get("/api/state", headers={"Host": f"localhost:{port}"}).status_code == 200
    click = {"points": [[1, 1]]}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        _refused(client.post(f"{picture}/predict", json=click, headers=headers), 403, "another page")
    own = {"Origin": f"http://{LOOPBACK}:{port}", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{picture}/predict", json=click, headers=own).status_code == 200


def test_with_a_token_nothing_goes_without_it(model: Sam2Model, tmp_path: Path) -> None:
    with (
        served(model, None, SAMPLE_PICTURE, token="sesame", idle_seconds=1) as (address, demo),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for headers in ({}, {"X-Token": "wrong"}, {"X-Token": "é".encode()}, {"X-Token": ""}):
            for path in ("/", "/api/state", "/api/media/x", "/api/media/x/frames/0"):
                _refused(client.get(path, headers=headers), 401, "token")
            _refused(client.post("/api/media", headers=headers, content=b"x"), 401, "token")
        assert client.get("/?token=sesame", headers={"Host": "desk.local"}).status_code == 200
        client.headers["X-Token"] = "sesame"
        # What nobody asks for is dropped, but not what was named at the start.
        small = _png(Image.fromarray(SAMPLE[:64, :64]))
        medium = client.post("/api/media?name=a.png", content=small).json()
        path = f"/api/media/{medium['id']}"
        answer = client.post(f"{path}/predict", json={"points": [[9, 9]]}).json()
        again = {"points": [[9, 9], [1, 1]], "labels": [1, 0], "previous": answer["keys"][0]}
        assert client.post(f"{path}/predict", json=again).status_code == 200
        folder = demo.media.folder
        assert len(list(folder.iterdir())) == 1
        end = time.monotonic() + 20
        while list(folder.iterdir()):
            assert time.monotonic() < end
            time.sleep(0.05)
        _refused(client.get(path), 404, "upload it again")
        assert client.get("/api/state").json()["opened"][0]["name"] == "sample.png"
    assert not folder.exists()


def test_pictures_are_not_kept_in_memory_and_frames_of_clips_are_counted(clip_file: Path) -> None:
    media, total = Media(10**6, 10**8), 0
    for file in (SAMPLE_PICTURE, clip_file):
        path = media.new_file()
        path.write_bytes(file.read_bytes())
        medium = media.take(path, file.name)
        held = weakref.ref(medium.frame(0))
        assert (held() is None) == (medium.kind == "picture")
        assert medium.kept_bytes == file.stat().st_size + (medium.kind == "video") * 5 * 3 * 256 * 256
        total += medium.kept_bytes
        assert media._uploads.total == total
    media.close()


def test_a_folder_is_a_clip_or_pictures(tmp_path: Path) -> None:
    for name, size in (("b.png", (30, 20)), ("a.png", (30, 20))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    media = Media(10**6, 10**6)
    with pytest.warns(UserWarning, match=r"damaged.png is not a picture"):
        media.open(tmp_path)
    Image.new("RGB", (20, 40)).save(tmp_path / "c.png")
    with pytest.warns(UserWarning, match=r"damaged.png is not a picture"):
        media.open(tmp_path)
    clip, *pictures = media.opened
    assert (clip.kind, len(clip.source)) == ("video", 3)
    found = [(medium.kind, medium.name, medium.frame(0).shape[:2]) for medium in pictures]
    assert found == [(*("picture", name), (20, 30)) for name in ("a.png", "b.png")] + [
        ("picture", "c.png", (40, 20))
    ]
    media.close()


def test_uploads_together_are_bounded(model: Sam2Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    upload = _png(Image.fromarray(noise))
    with (
        served(model, None, media_bytes=2.5 * len(upload), chunk_seconds=1) as (
            address,
            demo,
        ),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        ids = [client.post("/api/media?name=a.png", content=upload).json()["id"] for _ in range(4)]
        assert [client.get(f"/api/media/{id_}").status_code for id_ in ids] == [404, 404, 200, 200]
        assert len(list(demo.media.folder.iterdir())) == 2
        # Who does not go on sending is not waited for.
        with socket.create_connection((LOOPBACK, client.base_url.port)) as slow:
            slow.sendall(b"POST /api/media HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
            assert slow.recv(99).startswith(b"HTTP/1.1 408")


def test_a_model_for_pictures_alone_says_so(model: Sam2Model, clip_file: Path) -> None:
    def load() -> Any:
        raise ValueError("mine is a model for pictures; clips need one with a memory")

    with (
        served(model, load, clip_file) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        clip = f"/api/media/{client.get('/api/state').json()['opened'][0]['id']}"
        assert client.post(f"{clip}/predict", json={"points": [[9, 9]], "frame": 2}).status_code == 200
        (line,) = _lines(client.post(f"{clip}/track", json={"objects": OBJECTS}))
        assert "clips need one with a memory" in line["error"]


def test_a_track_ends_when_its_client_goes(
    client: Any, clip: str, tracks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam2_jax.demo import kept_tracks

    ended: list[int] = []

    def slowly(*arguments: Any, **options: Any) -> Iterator[Any]:
        done = 0
        try:
            for row in tracked(*arguments, **options):
                yield row
                done += 1
                time.sleep(1)
        finally:
            ended.append(done)

    monkeypatch.setattr(kept_tracks, "tracked", slowly)
    with client.stream("POST", f"{clip}/track", json={"objects": OBJECTS, "direction": "both"}) as answer:
        next(answer.iter_lines())
    end = time.monotonic() + 30
    while not ended:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert ended[0] < 4


# The command ------------------------------------------------------------------------------------------------


def _listening(pid: int) -> list[str]:
    """Where a process listens, as Linux writes it."""
    process = Path(f"/proc/{pid}")
    open_files = set()
    for path in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # the process closes files meanwhile
            open_files.add(os.readlink(path))
    found = []
    for table in ("tcp", "tcp6"):
        for row in (process / "net" / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = row.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in open_files:
                found.append(local)
    return found


def test_the_command_serves_from_this_machine_alone_until_ctrl_c(clip_file: Path) -> None:
    options = ["--port", "0", "--image-size", str(SIDE)]
    command = [sys.executable, "-m", "sam2_jax", "demo", str(clip_file), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            assert line.startswith(f"the page is at http://{LOOPBACK}:")
            address = line.split()[4]
            port = int(address.rstrip("/").rpartition(":")[2])
            assert httpx.get(f"{address}api/state").json()["opened"][0]["name"] == "clip.webp"
            listening = _listening(process.pid)
            assert listening == [f"0100007F:{port:04X}"]
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        assert process.wait(30) == 0
        assert "Traceback" not in rest
        assert rest.strip().endswith("stopped")


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from sam2_jax.commands import main

    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 1
    assert f"{LOOPBACK}:{port}" in (said := capsys.readouterr().err)
    assert "--port" in said
    assert main(["demo", "nowhere.jpg", "--port", "0"]) == 1
    assert "nowhere.jpg" in capsys.readouterr().err
    assert main(["demo", "--port", "70000"]) == 1
    assert "--port" in capsys.readouterr().err
    assert main(["demo", "--host", "a" * 70 + ".b"]) == 1
    assert "nothing can listen at" in capsys.readouterr().err


def test_other_addresses_ask_for_a_token() -> None:
    from sam2_jax.commands.demo import _address
    from sam2_jax.demo.guard import Guard

    assert _address("0.0.0.0", 80, "abc").endswith(":80/?token=abc")
    assert _address("::1", 80, None) == "http://[::1]:80/"
    with pytest.raises(ValueError, match="must have a token"):
        Guard(None, None, None)  # type: ignore[arg-type]


def test_without_the_extra_the_command_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sam2_jax.commands import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo"]) == 1
    assert "pip install 'sam2_jax[demo]'" in capsys.readouterr().err
