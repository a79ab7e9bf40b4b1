"""How signals are shown to people: colours and scales, line plots, and the display half of a tokenizer."""

from maskedmodel.pictures.display import SignalDisplay, montage
from maskedmodel.pictures.lines import bands_of, columns_of, draw_lines, line_scales, token_pixels
from maskedmodel.pictures.scales import ABSENT, Scale, Scales, heat

__all__ = [
    "ABSENT",
    "Scale",
    "Scales",
    "SignalDisplay",
    "bands_of",
    "columns_of",
    "draw_lines",
    "heat",
    "line_scales",
    "montage",
    "token_pixels",
]
