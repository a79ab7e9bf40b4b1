"""Which frames of a video a clip takes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

from maskedmodel_video.settings import VideoFolderSettings

Frame = TypeVar("Frame")


def wanted_times(
    times: Sequence[float], rate: float, settings: VideoFolderSettings, clip: int = 0, clips: int = 1
) -> list[float]:
    """When the frames of a clip are wanted, in seconds.

    A clip is `frames` frames, `stride` / `rate` seconds apart. `clips` of them are spread evenly from the start of the
    video to its end; one alone is its middle. A video that is shorter starts at its start, and the list is shorter too.
    """
    step = settings.stride / rate
    # The last frame is shown until the next would be.
    end = times[-1] + 1 / rate
    room = max(end - times[0] - ((settings.frames - 1) * step + 1 / rate), 0.0)
    # Whole frames, so that a clip of a constant rate takes frames as they are.
    start = times[0] + round(room * rate * (0.5 if clips == 1 else clip / (clips - 1)) - 1e-6) / rate
    wanted = [start + step * number for number in range(settings.frames)]
    return [time for time in wanted if time < end - 0.5 / rate] or wanted[:1]


def on_show(times: Sequence[float], wanted: Sequence[float], rate: float) -> list[int]:
    """Numbers of the frames, of those shown from `times` on, that are on show at the wanted times.

    A frame counts as shown from half a frame earlier on, since files round their times.
    """
    return [max(bisect_right(times, time + 0.5 / rate) - 1, 0) for time in wanted]


def choose(times: Sequence[float], settings: VideoFolderSettings, clip: int = 0, clips: int = 1) -> list[int]:
    """Numbers of the frames that a clip takes of a video whose frames are shown from `times` on, in seconds."""
    seconds = times[-1] - times[0]
    rate = settings.rate or ((len(times) - 1) / seconds if seconds > 0 else 1.0)
    return on_show(times, wanted_times(times, rate, settings, clip, clips), rate)


def fill(frames: Sequence[Frame], count: int) -> list[Frame]:
    """`count` frames: the last one again where there are fewer."""
    return [*frames, *[frames[-1]] * (count - len(frames))]
