"""Videos in folders as DAVIS and YouTube-VOS have them: found, read, shuffled into clips, split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_datasets import SIZE, write_video

from sam2_jax.training.examples import split
from sam2_jax.training.synthetic.clips import make_clip
from sam2_jax.training.video_folders import ShuffledVideos, VideoDataset, open_videos


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("davis")
    for name, frames in (("bear", 6), ("camel", 9), ("dance-twirl", 3)):
        write_video(folder, name, frames, inner="480p")
    return folder


@pytest.fixture(scope="module")
def dataset(davis: Path) -> VideoDataset:
    return open_videos(davis)


def test_videos_are_found_with_their_annotated_frames(dataset: VideoDataset, tmp_path: Path) -> None:
    assert [(video.name, len(video.frames)) for video in dataset.entries] == [
        ("bear", 6),
        ("camel", 9),
        ("dance-twirl", 3),
    ]
    write_video(tmp_path, "0a1b", 11, every=5)  # as YouTube-VOS has it
    (video,) = open_videos(tmp_path).entries
    assert [photo.name for photo, _ in video.frames] == ["00000.jpg", "00005.jpg", "00010.jpg"]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_video(tmp_path, "bear", 11)
    for path in (tmp_path / "JPEGImages/bear").iterdir():
        path.rename(path.with_stem(f"{int(path.stem)}"))
    for path in (tmp_path / "Annotations/bear").iterdir():
        path.rename(path.with_name(f"{int(path.stem)}.Png"))
    (video,) = open_videos(tmp_path).entries
    assert [int(photo.stem) for photo, _ in video.frames] == list(range(11))


def test_frames_are_read_with_the_objects_of_the_first(dataset: VideoDataset) -> None:
    clip = make_clip(5, len("bear"), 6, SIZE)
    read = dataset.read(0, [1, 3, 5])
    assert np.abs(read.images[1].astype(int) - clip.images[3]).mean() < 8  # JPEG
    is_seen = clip.masks[1].any(axis=(1, 2))
    np.testing.assert_array_equal(read.masks, clip.masks[1::2][:, is_seen])


def test_annotations_of_one_object_are_bright_on_black(tmp_path: Path) -> None:
    """As DAVIS 2016 has them, 255 on 0, which is no object where objects have values."""
    write_video(tmp_path, "one", 3)
    for path in (tmp_path / "Annotations" / "one").iterdir():
        with Image.open(path) as file:
            Image.fromarray((np.asarray(file) > 0).astype(np.uint8) * 255).save(path)
    with pytest.raises(ValueError, match="nothing is annotated"):
        open_videos(tmp_path).read(0, [0, 1])
    dataset = open_videos(tmp_path, one_object=True)
    clip = make_clip(5, len("one"), 3, SIZE)
    np.testing.assert_array_equal(dataset.read(0, [0, 1]).masks, clip.masks[:2].any(axis=1, keepdims=True))
    assert dataset.fingerprint() != open_videos(tmp_path).fingerprint()


def test_clips_are_the_same_for_the_same_step_and_long_enough(dataset: VideoDataset) -> None:
    source, again = (ShuffledVideos(dataset, 3, frames=8) for _ in range(2))
    seen = []
    for step in range(6):
        clip, same = source.example(step), again.example(step)
        np.testing.assert_array_equal(clip.images, same.images)
        assert len(clip.images) == 8  # of a video of 3 frames, too
        seen.append(clip.name.split(",")[0])
    assert sorted(seen[:3]) == sorted(seen[3:]) == ["bear", "camel", "dance-twirl"]


def test_a_damaged_video_is_left_out_and_said(davis: Path, tmp_path: Path) -> None:
    write_video(tmp_path, "good", 4)
    write_video(tmp_path, "bad", 4)
    for path in (tmp_path / "JPEGImages" / "bad").iterdir():
        path.write_bytes(b"no picture")
    dataset = open_videos(tmp_path)
    source = ShuffledVideos(dataset, 0, frames=2)
    with pytest.warns(UserWarning, match="bad cannot be used"):
        names = {source.example(step).name.split(",")[0] for step in range(4)}
    assert names == {"good"}
    assert len(dataset.problems) == 1


def test_a_video_with_two_files_for_one_frame_is_left_out_and_said(tmp_path: Path) -> None:
    for name in ("good", "photos", "maps"):
        write_video(tmp_path, name, 3)
    for folder, ending in (("JPEGImages/photos", "png"), ("Annotations/maps", "PNG")):
        Image.new("L", (SIZE, SIZE)).save(tmp_path / folder / f"00001.{ending}")
    dataset = open_videos(tmp_path)
    assert [video.name for video in dataset.entries] == ["good"]
    assert sorted(dataset.problems) == [
        "maps was left out: 00001.PNG and 00001.png are of one frame",
        "photos was left out: 00001.jpg and 00001.png are of one frame",
    ]


def test_what_is_no_dataset_of_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a folder with JPEGImages/ and Annotations/"):
        open_videos(tmp_path)
    for name in ("JPEGImages/one", "Annotations"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"has no video to train on \(1 problems; the first: one was left out"
    ):
        open_videos(tmp_path)


def test_a_split_parts_videos_and_data_is_told_from_other_data(dataset: VideoDataset) -> None:
    training, held_out = split(dataset, 0.3)
    assert (len(training), len(held_out)) == (2, 1)
    assert len({part.fingerprint() for part in (dataset, training, held_out)}) == 3
    assert dataset.fingerprint() == open_videos(dataset.entries[0].frames[0][0].parents[3]).fingerprint()
