"""What the `video_folder` source is told, and the form its clips come in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from maskedmodel.sources import FileSettings

CHANNELS = {"grey": 1, "rgb": 3}


class VideoFolderSettings(FileSettings):
    """Settings of the `video_folder` source."""

    name: Literal["video_folder"] = "video_folder"
    files: Literal["auto", "videos", "frames"] = Field(
        "auto",
        description="videos: each video file is one video. frames: each folder of image files is one, its images in "
        "the order of the numbers in their names. auto: videos where there are any.",
    )
    label_by: Literal["folder", "stem"] = Field(
        "folder",
        description="folder: the class is the sub-folder, or what a table says. stem: it is the name of the video "
        "without its ending, where each video is a class of its own.",
    )
    frames: PositiveInt = Field(
        32,
        description="Frames stored of a clip. Where a tokenizer takes fewer, it starts at a random one in training. A "
        "video with fewer goes on with its last one.",
    )
    stride: PositiveInt = Field(
        2, description="Frames of the video from one stored frame to the next, at the video's own rate or at `rate`."
    )
    rate: float | None = Field(
        None,
        gt=0,
        description="Frames per second at which time is counted, so that videos of different rates move alike. null: "
        "each video's own mean rate. Frames in folders have no times, so they are counted as they are.",
    )
    clips: PositiveInt = Field(
        1, description="Clips of a training video, evenly spread over it; one: its middle. Validation takes the middle."
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        256,
        description="Stored size in pixels, one number or [height, width]: the short side is resized to fit, the "
        "centre kept.",
    )
    mode: Literal["grey", "rgb"] = Field("rgb", description="Channels of a clip: grey 1, rgb 3.")
    incomplete: Literal["refuse", "read"] = Field(
        "refuse",
        description="A video that ends before its container says, or of which frames can't be decoded. refuse: it is a "
        "broken sample. read: what can be decoded is read, which is told.",
    )
    most_pixels: PositiveInt = Field(
        1 << 26, description="Pixels of one frame at most: a file with larger ones is taken for broken."
    )
    most_frames: PositiveInt = Field(
        1_000_000, description="Frames of one video at most: a longer one is taken for broken. 9 hours at 30 a second."
    )
    memory: bool = Field(
        False,
        description="Whether all clips are decoded once, into memory, when the data is opened: frames x channels x "
        "height x width bytes each.",
    )

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a stored clip."""
        return (CHANNELS[self.mode], self.frames, *self.frame_size)
