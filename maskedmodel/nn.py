"""Parts of the engine for networks of a plugin's own: blocks, positions, and what they cost."""

from maskedmodel.engine.flops import block_flops, cross_block_flops
from maskedmodel.engine.layers import Block, CrossBlock
from maskedmodel.engine.positions import PositionEmbedding, gather_tokens

__all__ = ["Block", "CrossBlock", "PositionEmbedding", "block_flops", "cross_block_flops", "gather_tokens"]
