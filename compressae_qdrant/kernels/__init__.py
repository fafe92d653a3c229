"""Numerical kernels: the signed top-k of pre-activations, the decode of codes, and fused GPU kernels."""

from .dispatch import Status, available
from .operations import encode_topk, scatter_outer, signed_topk, sparse_decode

__all__ = ["Status", "available", "encode_topk", "scatter_outer", "signed_topk", "sparse_decode"]
