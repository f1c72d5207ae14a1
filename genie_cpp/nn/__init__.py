"""The building blocks as `torch.nn.Module`s: attention of many kinds, norms, embeddings, the vector
quantizer.

Shapes: B samples, T frames, N tokens (of a frame, where T is there too), C channels. Constructor
arguments and weight names are those of the original each class names, so that its state dicts load with
`strict=True`. Wrong arguments raise ValueError or TypeError with what was expected and what came.
"""

from __future__ import annotations

from genie_cpp.adoption import Module
from genie_cpp.nn.cross_attention import CrossAttention, CrossAttentionBlock
from genie_cpp.nn.embeddings import (
    CombinedPositionalEmbedding,
    PatchEmbedding,
    RMSNorm,
    SpatialPositionalEmbedding,
    TemporalPositionalEmbedding,
)
from genie_cpp.nn.rope_attention import RoPEAreaAttention, RoPEAttention, area_ids
from genie_cpp.nn.st_transformer import (
    STMLP,
    DropPath,
    STSpatialAttention,
    STTemporalAttention,
    STTransformer,
    STTransformerBlock,
    create_st_transformer,
)
from genie_cpp.nn.vector_quantizer import Quantized, VectorQuantizer
from genie_cpp.nn.vit5_attention import ViT5Attention

__all__ = [
    "CombinedPositionalEmbedding",
    "CrossAttention",
    "CrossAttentionBlock",
    "DropPath",
    "Module",
    "PatchEmbedding",
    "Quantized",
    "RMSNorm",
    "RoPEAreaAttention",
    "RoPEAttention",
    "STMLP",
    "STSpatialAttention",
    "STTemporalAttention",
    "STTransformer",
    "STTransformerBlock",
    "SpatialPositionalEmbedding",
    "TemporalPositionalEmbedding",
    "VectorQuantizer",
    "ViT5Attention",
    "area_ids",
    "create_st_transformer",
]
