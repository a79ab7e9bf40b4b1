"""Which frames of a video a clip takes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from maskedmodel_video.settings import VideoFolderSettings

Frame = TypeVar("Frame")


def choose(times: Sequence[float], settings: VideoFolderSettings, clip: int = 0, clips: int = 1) -> list[int]:
    """Numbers of the frames that a clip takes of a video whose frames are shown from `times` on, in seconds, in order.

    A clip is `frames` frames, `stride` / `rate` seconds apart, and takes what is on show then. `clips` of them are
    spread evenly from the start of the video to its end; one alone is its middle. A video that is too short is taken
    from its start to its end, and the list is shorter.
    """
    seconds = times[-1] - times[0]
    rate = settings.rate or ((len(times) - 1) / seconds if seconds > 0 else 1.0)
    interval = _usual_interval(times) or 1 / rate
    end = times[-1] + interval  # the last frame is shown as long as others usually are
    span = (settings.frames - 1) * settings.stride / rate + 1 / rate
    room = max(end - times[0] - span, 0.0)
    # A whole number of frames, so that of a constant rate each frame is taken as it is.
    start = times[0] + math.ceil(room * rate * (0.5 if clips == 1 else clip / (clips - 1)) - 0.5) / rate
    rounding = interval / 4  # files round the times of their frames
    wanted = [start + number * settings.stride / rate for number in range(settings.frames)]
    wanted = [time for time in wanted if time < end - rounding] or wanted[:1]
    return [max(bisect_right(times, time + rounding) - 1, 0) for time in wanted]


def _usual_interval(times: Sequence[float]) -> float | None:
    """The median time from one frame to the next, None where there is no next."""
    intervals = sorted(after - before for before, after in pairwise(times) if after > before)
    return intervals[len(intervals) // 2] if intervals else None


def fill(frames: Sequence[Frame], count: int) -> list[Frame]:
    """`count` frames: the last one again where there are fewer."""
    return [*frames, *[frames[-1]] * (count - len(frames))]
