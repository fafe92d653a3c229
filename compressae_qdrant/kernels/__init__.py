"""What everything is made of: the signed top-k of pre-activations, and the decode of sparse codes."""

from .reference import encode_topk, scatter_outer, signed_topk, sparse_decode

__all__ = ["encode_topk", "scatter_outer", "signed_topk", "sparse_decode"]
