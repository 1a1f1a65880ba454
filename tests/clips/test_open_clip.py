"""Clips of every kind, read in any order, and refused in a sentence."""

import gc
import struct
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import number_of, numbered_frame, write_folder, write_gif, write_video
from PIL import Image

from sam2_jax.clips.ahead import AHEAD, Ahead
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.reading import open_clip

COUNT = 40
KINDS = ("folder", "gif", "webp", "png", "mp4", "mov", "mkv", "webm", "vp9.webm")


def numbered(count: int = COUNT, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [numbered_frame(t, height, width) for t in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the clip of a kind, once."""
    root, made = tmp_path_factory.mktemp("clips"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            path = root / f"clip.{kind}"
            if kind == "folder":
                made[kind] = write_folder(path, numbered())
            elif kind in ("gif", "webp", "png"):
                made[kind] = write_gif(path, numbered())
            else:
                codec = {"mov": "mpeg4", "webm": "libvpx", "vp9.webm": "libvpx-vp9"}.get(kind, "libx264")
                options = {"g": "12", "bf": "3"} if codec == "libx264" else {"g": "12"}
                if codec == "libvpx":
                    options |= {"auto-alt-ref": "1", "lag-in-frames": "16"}
                made[kind] = write_video(path, numbered(), codec, **options)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_frames_come_in_any_order(files: Any, kind: str) -> None:
    with open_clip(files(kind)) as clip:
        assert (len(clip), clip.size) == (COUNT, (48, 64))
        assert clip.rate == (None if kind == "folder" else pytest.approx(25, rel=0.03))
        forwards = list(clip)
        assert [number_of(frame) for frame in forwards] == list(range(COUNT))
        assert forwards[0].dtype == np.uint8
        assert forwards[0].shape == (48, 64, 3)
        for t in [*range(COUNT - 1, -1, -1), 17, 3, 4, 39, 0, 11, 12, 13, 12]:
            np.testing.assert_array_equal(clip[t], forwards[t])
        assert number_of(clip[-1]) == COUNT - 1
        with pytest.raises(IndexError):
            clip[COUNT]


@pytest.mark.parametrize("kind", ["folder", "gif", "mp4"])
def test_a_part_of_a_clip(files: Any, kind: str) -> None:
    clip = open_clip(files(kind), 5, 30, 4)
    expected = [5, 9, 13, 17, 21, 25, 29]
    assert [number_of(frame) for frame in clip] == expected
    assert [number_of(clip[t]) for t in range(6, -1, -1)] == expected[::-1]
    assert [number_of(frame) for frame in clip[1:3]] == [9, 13]
    assert clip.name(1) == ("frame 9" if kind == "folder" else "00009")
    assert clip.rate is None or clip.rate == pytest.approx(25 / 4, rel=0.03)
    assert len(open_clip(files(kind), 39, 1000)) == 1


def test_frames_are_known_by_their_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(5, 300, COUNT)).tolist()
    path = write_video(tmp_path / "a.mp4", numbered(), times=times, g="12", bf="3")
    clip = open_clip(path)
    assert len(clip) == COUNT
    assert clip.rate == pytest.approx(1000 * (COUNT - 1) / (times[-1] - times[0]), rel=0.01)
    assert [number_of(clip[t]) for t in (30, 7, 39, 38, 0)] == [30, 7, 39, 38, 0]


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    one = open_clip(write_video(tmp_path / "one.mp4", numbered(1)))
    assert len(one) == 1
    assert number_of(one[0]) == 0
    odd = open_clip(write_video(tmp_path / "odd.mp4", numbered(5, 45, 67)))
    assert odd.size == (45, 67)
    assert [number_of(frame) for frame in odd] == list(range(5))
    Image.fromarray(numbered_frame(3)).save(tmp_path / "single.jpg")
    assert len(open_clip(tmp_path / "single.jpg")) == 1


def test_frames_that_were_read_are_let_go(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clip = open_clip(write_video(tmp_path / "a.mp4", numbered()))
    gc.disable()  # which frees what is tied in a knot, sooner or later
    try:
        before = sum(type(each) is av.VideoFrame for each in gc.get_objects())
        for t in range(COUNT):
            assert number_of(clip[t]) == t
        left = sum(type(each) is av.VideoFrame for each in gc.get_objects()) - before
    finally:
        gc.enable()
    assert left < COUNT / 4


MATRICES = {
    # what a point (x, y) of the file becomes: (a x + c y, b x + d y)
    "as it is": (1, 0, 0, 1),
    "a quarter clockwise": (0, 1, -1, 0),
    "half": (-1, 0, 0, -1),
    "a quarter back": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
}


@pytest.mark.parametrize("turn", MATRICES)
def test_videos_stand_upright(tmp_path: Path, turn: str) -> None:
    path = write_video(tmp_path / "turned.mp4", numbered(3))
    a, b, c, d = MATRICES[turn]
    data = path.read_bytes()
    at = data.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    turned = {
        "as it is": lambda x: x,
        "a quarter clockwise": lambda x: np.rot90(x, -1),
        "half": lambda x: np.rot90(x, 2),
        "a quarter back": np.rot90,
        "mirrored": np.fliplr,
        "upside down": np.flipud,
    }[turn](numbered_frame(1))
    clip = open_clip(path)
    assert clip.size == turned.shape[:2]
    assert np.abs(clip[1].astype(int) - turned).max() < 12


def test_a_picture_in_place_of_an_animation_is_none_of_its_frames(tmp_path: Path) -> None:
    instead, *frames = (Image.fromarray(numbered_frame(t)) for t in range(5))
    path = tmp_path / "clip.png"
    instead.save(path, save_all=True, append_images=frames, duration=40, default_image=True)
    with open_clip(path) as clip:
        assert [number_of(frame) for frame in clip] == [1, 2, 3, 4]
        assert [number_of(clip[t]) for t in (3, 2, 0)] == [4, 3, 1]
        assert clip.rate == 25


def test_a_photo_of_a_phone_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    photo, other = (Image.fromarray(numbered_frame(t)) for t in (3, 7))
    photo.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[other])
    with open_clip(tmp_path / "photo.jpg") as clip:
        assert [number_of(frame) for frame in clip] == [3]


@pytest.mark.parametrize("codec", ["png", "qtrle"])
def test_transparent_frames_are_those_of_transparent_pictures(tmp_path: Path, codec: str) -> None:
    av = pytest.importorskip("av")
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 4), np.uint8)
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, {"png": "rgba", "qtrle": "argb"}[codec]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        container.mux(stream.encode())
    with open_clip(tmp_path / "clip.mov") as video, open_clip(write_folder(tmp_path / "a", frames)) as folder:
        np.testing.assert_array_equal(list(video), list(folder))
        assert folder[0][frames[0, ..., 3] == 0].min() == 255  # white


def test_pictures_stand_upright_by_their_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for t in range(2):
        Image.fromarray(numbered_frame(t)).save(tmp_path / f"{t}.jpg", exif=exif, quality=95)
    for clip, t in ((open_clip(tmp_path), 1), (open_clip(tmp_path / "1.jpg"), 0)):
        assert clip.size == (64, 48)
        assert np.abs(clip[t].astype(int) - np.rot90(numbered_frame(1), -1)).max() < 12


def damaged(path: Path, frame: int) -> None:
    """Spoil the bytes of a frame of a video."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        (place,) = ((p.pos, p.size) for i, p in enumerate(sorted(packets, key=lambda p: p.pts)) if i == frame)
    data = bytearray(path.read_bytes())
    data[place[0] : place[0] + place[1]] = bytes(255 for _ in range(place[1]))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "codec", "bit_rate"),
    [
        ("a.ts", "libx264", 10**6),
        ("a.ts", "mpeg2video", 10**6),
        ("a.mpg", "mpeg2video", 8 * 10**6),
        ("a.avi", "mpeg4", 10**6),
    ],
)
def test_a_frame_asked_for_alone_is_the_one_that_comes_in_its_turn(
    tmp_path: Path, name: str, codec: str, bit_rate: int
) -> None:
    """Also of files that can only be jumped to places behind, or whose times are made up."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "2", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.bit_rate = bit_rate
        rng = np.random.default_rng(0)
        for frame in numbered():
            frame[:, :32] = rng.integers(0, 255, (48, 32, 3))  # so that files are not too small to jump in
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    in_turn = list(open_clip(tmp_path / name))
    assert all(abs(number_of(frame) - t) <= 1 for t, frame in enumerate(in_turn))  # all is lossy
    assert len(in_turn) == COUNT
    for t in (1, 2, 13, 29, 31, COUNT - 2):
        np.testing.assert_array_equal(open_clip(tmp_path / name)[t], in_turn[t])


def test_a_damaged_frame_ends_a_video_and_those_before_stay_good(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = [frame // 2 + rng.integers(0, 99, frame.shape, np.uint8) // 2 for frame in numbered(20)]
    path = write_video(tmp_path / "damaged.mp4", noisy, g="100", bf="0", sc_threshold="0")
    whole = list(open_clip(path))
    damaged(path, 9)
    clip = open_clip(path)
    assert len(clip) == 20
    for t in range(9):
        np.testing.assert_array_equal(clip[t], whole[t])
    with pytest.raises(
        ValueError,
        match=r"frame 9 of the clip cannot be read: .*damaged.mp4 is damaged\..* end=9 takes those alone",
    ):
        clip[9]
    with pytest.raises(ValueError, match="frame 12 of the clip cannot be read: .* is damaged at frame 9"):
        clip[12]
    np.testing.assert_array_equal(clip[3], whole[3])
    assert len(list(open_clip(path, end=9))) == 9


@pytest.mark.parametrize("end", ["mp4", "mkv"])
def test_a_file_that_is_cut_short(tmp_path: Path, end: str) -> None:
    path = write_video(tmp_path / f"short.{end}", numbered(), is_streamable=end == "mp4", bf="0")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        clip = open_clip(path)
    # The header of an mp4 says how many frames there should be.
    assert [str(each.message) for each in told] == [
        f"{path} is cut short: it announces {COUNT} frames and has {len(clip)}" for _ in range(end == "mp4")
    ]
    assert 0 < len(clip) < COUNT
    found = []
    with suppress(ValueError):  # the last one may be cut
        for frame in clip:
            found.append(number_of(frame))
    assert found == list(range(len(found)))
    assert len(clip) - len(found) in (0, 1)


def test_pictures_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(3))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"none"))
    with pytest.raises(
        ValueError, match="a.mp4 has pictures of a kind that PyAV does not read, or is broken"
    ):
        open_clip(path)


def test_a_stream_that_comes_later_is_left_out_or_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 64, 64, 3), np.uint8)
    data = bytearray(write_video(tmp_path / "a.ts", noise).read_bytes())
    # The last picture of a transport stream, where its packet begins, goes to another stream.
    places = range(0, len(data), 188)
    last = max(place for place in places if (data[place + 1] & 0x5F, data[place + 2]) == (0x41, 0))
    data[last + 2] = 1
    (tmp_path / "a.ts").write_bytes(data)
    if int(av.__version__.split(".")[0]) >= 19:
        assert len(open_clip(tmp_path / "a.ts")) == len(noise) - 1
        return
    with pytest.raises(ValueError, match="has a stream of which its beginning does not tell: convert it"):
        open_clip(tmp_path / "a.ts")


def test_hidden_packets_of_vp8_are_no_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_video(tmp_path / "plain.webm", [numbered_frame(7)] * 10, "libvpx")
    with av.open(str(path)) as given, av.open(str(tmp_path / "hidden.webm"), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if not packet.size:
                continue
            packet.stream = stream
            made.mux(packet)
            if packet.pts == 200:
                data = bytearray(bytes(packet))
                data[0] &= ~0x10
                hidden = av.Packet(bytes(data))
                hidden.pts = hidden.dts = 210
                hidden.stream, hidden.time_base = stream, packet.time_base
                made.mux(hidden)
    clip = open_clip(tmp_path / "hidden.webm")
    assert [number_of(frame) for frame in clip] == [7] * 10


def test_pictures_that_are_broken_or_of_other_sizes_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", numbered(4))
    (folder / "frame 2.png").write_bytes((folder / "frame 2.png").read_bytes()[:80])
    clip = open_clip(folder)
    assert number_of(clip[1]) == 1
    with pytest.raises(ValueError, match=r"frame 2 of the clip .*frame 2.png.*broken.*end=2 takes those"):
        clip[2]
    assert number_of(clip[3]) == 3
    Image.fromarray(numbered_frame(2, 50, 64)).save(folder / "frame 2.png")
    with pytest.raises(ValueError, match="frame 2 of the clip .* several sizes: this one is 64 x 50 pixels"):
        open_clip(folder)[2]


@pytest.mark.parametrize("address", ["https://a.b/c.mp4", "rtsp://camera", Path("http://a.b/c.gif")])
def test_addresses_are_refused(address: Any) -> None:
    with pytest.raises(ValueError, match="got the address .*: download it first"):
        open_clip(address)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all, but rather long " * 99)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "text.gif").write_text("no picture")
    for name, message in {
        "none.mp4": "there is no clip",
        "empty": "there is no picture in",
        "empty.mp4": "is not a video that can be read",
        "text.mp4": "is not a video that can be read",
        "list.m3u8": "is not a video that can be read",
        "text.gif": "is not a picture",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_clip(tmp_path / name)
    with pytest.raises(ValueError, match="a clip's path must be text or a Path; got 7"):
        open_clip(7)  # type: ignore[arg-type]
    folder = write_folder(tmp_path / "folder", numbered(4))
    Image.fromarray(numbered_frame(0)).save(folder / "frame 0.jpg")
    with pytest.raises(ValueError, match=r"two pictures of one name, frame 0.\w+ and frame 0.\w+"):
        open_clip(folder)
    with pytest.raises(ValueError, match="64 x 48 pixels are more than the limit of 3,000"):
        open_clip(write_video(tmp_path / "large.mp4", numbered(2)), max_pixels=3000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 4}, "start must be a frame of .*, 0 to 3; got 4"),
        ({"start": -1}, "start must be a whole number of at least 0; got -1"),
        ({"start": 2, "end": 2}, "end must be more than start, 2; got 2"),
        ({"stride": 0}, "stride must be a whole number of at least 1; got 0"),
        ({"end": "x"}, "end must be a whole number"),
    ],
)
def test_parts_that_cannot_be_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    folder = write_folder(tmp_path / "folder", numbered(4))
    with pytest.raises(ValueError, match=message):
        open_clip(folder, **options)


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="has no moving pictures in it"):
        open_clip(path)


def test_a_pyav_that_crashes_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", numbered(3))
    monkeypatch.setattr("av.__version__", "17.0.1")
    with pytest.raises(
        ValueError, match=r"PyAV 17.0.1 is too old.*pip install --upgrade 'sam2_jax\[video\]'"
    ):
        open_clip(path)


def test_a_picture_that_goes_with_a_video_is_none_of_its_frames(tmp_path: Path) -> None:
    """As music's cover; not even where it comes first in the file."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=25) for codec in ("libx264", "mjpeg")]
        packets = []
        for stream, format_, count in zip(streams, ("yuv420p", "yuvj420p"), (3, 1), strict=True):
            stream.width, stream.height, stream.pix_fmt = 64, 48, format_
            for t in range(count):
                frame = av.VideoFrame.from_ndarray(numbered_frame(t + 1), format="rgb24")
                packets += stream.encode(frame)
            packets += stream.encode()
        streams[1].disposition = av.stream.Disposition.attached_pic
        for packet in packets:
            container.mux(packet)
    data = path.read_bytes()
    track, about = data.index(b"trak") - 4, data.index(b"udta") - 4
    (size,) = struct.unpack(">I", data[about : about + 4])
    moved = data[:track] + data[about : about + size] + data[track:about] + data[about + size :]
    path.write_bytes(moved)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["mjpeg", "h264"]
    with open_clip(path) as clip:
        assert [number_of(frame) for frame in clip] == [1, 2, 3]


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"need the package av \(PyAV\): pip install 'sam2_jax\[video\]'"):
        open_clip(tmp_path / "a.mp4")


class Counting:
    """A source that counts what is read of it."""

    path = Path("counting")
    size = 4, 4
    rate = None

    def __init__(self) -> None:
        self.read_so_far = 0

    def __len__(self) -> int:
        return 1000

    def read(self, frames: range) -> Any:
        for t in frames:
            self.read_so_far += 1
            yield np.full((4, 4, 3), t % 256, np.uint8)

    def name(self, frame: int) -> str:
        return str(frame)

    def digest(self) -> str:
        return ""


def threads() -> set[threading.Thread]:
    """Those that read ahead: other tests' may still be about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "frames ahead"}


def wait_for(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be")


def test_a_few_frames_are_read_ahead_and_no_more() -> None:
    source, before = Counting(), threads()
    clip = Clip(source, range(1000))
    assert clip[0].max() == 0
    wait_for(lambda: source.read_so_far == AHEAD + 2)
    time.sleep(0.05)
    assert source.read_so_far == AHEAD + 2
    assert len(threads() - before) == 1
    clip.close()
    wait_for(lambda: not threads() - before)


def test_the_thread_ends_when_nobody_wants_frames() -> None:
    before = threads()
    for frame in Clip(Counting(), range(1000)):
        if frame.max() > 3:
            break
    gc.collect()
    wait_for(lambda: not threads() - before)
    clip = Clip(Counting(), range(1000))
    assert clip[500].max() == 500 % 256
    del clip
    gc.collect()
    wait_for(lambda: not threads() - before)


def test_what_goes_wrong_in_the_thread_reaches_whoever_reads() -> None:
    class Failing(Counting):
        def read(self, frames: range) -> Any:
            for t in frames:
                if t == 7:
                    raise RuntimeError("the disk is gone")
                yield np.full((4, 4, 3), t, np.uint8)

    before = threads()
    clip = Clip(Failing(), range(1000))
    assert [clip[t].max() for t in range(7)] == list(range(7))
    for _ in range(2):
        with pytest.raises(ValueError, match="frame 7 of the clip cannot be read: the disk is gone"):
            clip[7]
    wait_for(lambda: not threads() - before)


def test_frames_that_were_read_are_not_to_be_written_to() -> None:
    clip = Clip(Counting(), range(1000))
    with pytest.raises(ValueError, match="read-only"):
        clip[3][0] = 7
    clip.close()


def test_the_end_of_what_is_read_ahead() -> None:
    ahead = Ahead(lambda: iter([np.zeros((1, 1, 3), np.uint8)] * 2))
    assert len(list(ahead)) == 2
    assert list(ahead) == []
