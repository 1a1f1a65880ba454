"""Video files through PyAV, an optional package: frames by their times, upright, in any order.

A damaged frame ends what can be read: those after it build upon it, and a decoder that conceals that would
have the tracker follow what is not there.
"""

import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.clips.pictures import BACKWARDS, file_digest
from sam2_jax.processing.images import MAX_PIXELS, check_pixels, to_rgb

# Playlists, which name other files and addresses, are not among them.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,ivf,gif,mjpeg,m4v,h264,hevc,mxf,nut"
)
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "fflags": "+genpts"}
_SHOWN_BY_VP8 = 0x10
_LEAST_PYAV = (17, 1)  # those before end the process when they open an MPEG transport stream
# Frames: more than are between two that can be jumped to.
_FURTHER_BACK = 300


def import_av() -> ModuleType:
    """PyAV. Raises ValueError, naming the extra that brings it, if it is not installed or too old."""
    try:
        import av
    except ImportError as error:
        raise ValueError(
            "video files need the package av (PyAV): pip install 'sam2_jax[video]', or give a folder of "
            "pictures, an animated GIF or WebP"
        ) from error
    if tuple(map(int, av.__version__.split(".")[:2])) < _LEAST_PYAV:
        raise ValueError(
            f"PyAV {av.__version__} is too old, and crashes on some files: "
            "pip install --upgrade 'sam2_jax[video]'"
        )
    return av


class VideoFile:
    """A video file: mp4, mov, mkv, webm and what else FFmpeg reads.

    Which frames there are is read from the times of the file's packets, without decoding. Frames are turned
    and mirrored as the file asks for; pixels are taken as square. Raises ValueError if it is no video, has no
    frame, or is larger than max_pixels; warns if it announces more frames than it has.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self._max_pixels = max_pixels
        with self._opened() as (container, stream):
            # AVI does not say when frames are shown that are not stored in that order, and a program stream
            # says it of some frames only: those are counted, from the first on.
            kind, is_in_order = container.format.name, not stream.codec_context.has_b_frames
            self._is_counted = kind == "mpeg" or (kind == "avi" and not is_in_order)
            announced = stream.frames
            self._times = self._find_times(container, stream)
            seconds = float((self._times[-1] - self._times[0]) * stream.time_base)
            average = stream.average_rate
        if len(self._times) < announced:
            warnings.warn(
                f"{path} is cut short: it announces {announced} frames and has {len(self._times)}",
                stacklevel=3,
            )
        self.rate = (len(self._times) - 1) / seconds if seconds > 0 else float(average) if average else None
        self.size = next(self.read(range(1))).shape[:2]

    def __len__(self) -> int:
        return len(self._times)

    def name(self, frame: int) -> str:
        """The frame's number in five digits."""
        return f"{frame:05}"

    def digest(self) -> str:
        """See `Source`."""
        return file_digest(self.path)

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`. Backwards, a few frames at a time are decoded from the nearest place before them."""
        if frames.step > 0:
            yield from self._forwards(frames)
        for i in range(0, len(frames) if frames.step < 0 else 0, BACKWARDS):
            yield from reversed(list(self._forwards(frames[i : i + BACKWARDS][::-1])))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = import_av()
        if not self.path.is_file():
            raise ValueError(f"there is no video {self.path}")
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror or error}") from error
        try:
            # A file object and not a name, which FFmpeg might take for an address.
            with file, av.open(file, options=_OPTIONS) as container:
                stream = next((each for each in container.streams.video if not _is_cover(each)), None)
                if stream is None:
                    raise ValueError(f"{self.path} has no moving pictures in it: only sound or other data")
                if stream.codec_context is None:
                    raise ValueError(
                        f"{self.path} has pictures of a kind that PyAV does not read, or is broken"
                    )
                # Decoders are to say what is damaged, not to paint over it.
                stream.codec_context.options = {"err_detect": "explode"}
                # Decoders of several frames at once lose good ones together with a damaged one.
                stream.thread_type = "SLICE"
                width, height = stream.codec_context.width, stream.codec_context.height
                check_pixels((width, height), self._max_pixels, str(self.path))
                yield container, stream
        except (av.FFmpegError, OSError) as error:
            raise ValueError(
                f"{self.path} is not a video that can be read, or is broken ({_reason(error)}). A "
                "folder of its frames as pictures can be read as well"
            ) from error

    @property
    def _remedy(self) -> str:
        return f"convert it first, ffmpeg -i {self.path.name} {self.path.stem}.mp4"

    def _find_times(self, container: Any, stream: Any) -> list[int]:
        """When each frame is shown, in the stream's unit, ascending."""
        av = import_av()
        is_vp8 = stream.codec_context.name == "vp8"
        times = []
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                if is_vp8 and not bytes(packet)[0] & _SHOWN_BY_VP8:
                    continue  # what later frames build upon, and nobody sees
                if packet.pts is None:
                    raise ValueError(f"{self.path} does not say when its frames are shown: {self._remedy}")
                times.append(packet.pts)
        except av.FFmpegError:
            pass  # it ends here
        except IndexError as error:  # PyAV's, before 19
            raise ValueError(
                f"{self.path} has a stream of which its beginning does not tell: {self._remedy}"
            ) from error
        if not times:
            raise ValueError(f"{self.path} has no frame")
        return sorted(times if self._is_counted else set(times))

    def _forwards(self, frames: range) -> Iterator[np.ndarray]:
        decoded = self._decoded_from(frames[0])
        first = next(decoded, None)
        last = frames[0] - 1 if first is None else first[0] - 1
        orientation = (1, 0, 0, 1) if first is None else _orientation(first[1])
        while first is not None:
            number, frame = first
            if number != last + 1:
                break
            last = number
            if number in frames:
                yield _upright(frame, orientation)
                if number == frames[-1]:
                    return
            first = next(decoded, None)
        raise ValueError(f"{self.path} is damaged" + ("" if last + 1 in frames else f" at frame {last + 1}"))

    def _decoded_from(self, start: int) -> Iterator[tuple[int, Any]]:
        """`_decoded`, from a frame that is not behind this one; none if there is no such way."""
        # Some files are read from a place behind the one that was asked for.
        places = (0,) if self._is_counted else (start, start - _FURTHER_BACK, 0)
        for place in dict.fromkeys(max(place, 0) for place in places):
            with self._opened() as (container, stream):
                if place:
                    container.seek(self._times[place], stream=stream)
                decoded = self._decoded(container, stream)
                first = next(decoded, None)
                if first is not None and first[0] <= start:
                    yield first
                    yield from decoded
                    return

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, in order, up to the first that the decoder itself calls damaged."""
        av = import_av()
        latest = -1
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except av.FFmpegError:
                if self._is_counted:
                    return
                continue  # a gap in the numbers will tell, once the frames before it have come
            for frame in found:
                if frame.is_corrupt:
                    return
                has_time = frame.pts is not None and not self._is_counted
                number = bisect_left(self._times, frame.pts) if has_time else latest + 1
                if number > latest and number < len(self._times):
                    latest = number
                    yield number, frame


def _is_cover(stream: Any) -> bool:
    """Whether a stream is a picture that goes with the file, as music's cover."""
    kinds = stream.disposition
    return bool(kinds & type(kinds).attached_pic)


def _orientation(frame: Any) -> tuple[int, int, int, int]:
    """How a stream's pixels are to be turned and mirrored: its display matrix, of signs a, b, c, d.

    What was at (x, y) goes to (a x + c y, b x + d y). To be asked of one frame only: PyAV ties a frame that
    was asked in a knot with the answer, and its memory stays until Python looks for such knots.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    return a, b, c, d


def _upright(frame: Any, orientation: tuple[int, int, int, int]) -> np.ndarray:
    """A frame's pixels, uint8 [H, W, 3], as people are to see them, with transparency as pictures have it."""
    has_alpha = any(part.is_alpha for part in frame.format.components)
    pixels: np.ndarray = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    if has_alpha:
        pixels = to_rgb(Image.fromarray(pixels), max_pixels=pixels.size)
    a, b, c, d = orientation
    if not a and not d:
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])


def _reason(error: Any) -> str:
    return str(error.strerror or type(error).__name__)
