from __future__ import annotations

import torch

from compressae_qdrant.kernels import encode_topk, scatter_outer, signed_topk, sparse_decode
from compressae_qdrant.model.compressae import CompresSAE
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.training.autoencoder import cosine_losses


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _codes(n: int, h: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    indices = torch.stack([torch.randperm(h, generator=random)[:k] for _ in range(n)])
    return indices, _random(n, k, seed=2)


def test_signed_topk_keeps_signs_and_orders_by_magnitude() -> None:
    indices, values = signed_topk(torch.tensor([[1.0, -3.0, 2.0, 0.5], [-1.0, -2.0, -3.0, -4.0]]), 2)
    assert indices.tolist() == [[1, 2], [3, 2]]
    assert values.tolist() == [[-3.0, 2.0], [-4.0, -3.0]]


def test_signed_topk_of_ties_names_different_latents() -> None:
    indices, values = signed_topk(torch.tensor([[1.0, -1.0, 1.0, -1.0]]), 4)
    assert sorted(indices[0].tolist()) == [0, 1, 2, 3]
    assert sorted(values[0].tolist()) == [-1.0, -1.0, 1.0, 1.0]


def test_decode_is_the_dense_product() -> None:
    indices, values = _codes(5, 13, 4)
    atoms = _random(13, 7, seed=3)
    dense = torch.zeros(5, 13, dtype=torch.float64).scatter(1, indices, values)
    torch.testing.assert_close(sparse_decode(indices, values, atoms), dense @ atoms)


def test_scatter_outer_is_the_transposed_product_even_for_unused_latents() -> None:
    indices, values = _codes(3, 50, 4)
    rows = _random(3, 7, seed=4)
    dense = torch.zeros(3, 50, dtype=torch.float64).scatter(1, indices, values)
    torch.testing.assert_close(scatter_outer(indices, values, rows, 50), dense.T @ rows)


def test_gradients_of_decode() -> None:
    indices, values = _codes(4, 9, 3)
    atoms = _random(9, 5, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: sparse_decode(indices, v, a), (values.requires_grad_(), atoms))


def test_gradients_of_encode_topk() -> None:
    x, weight, bias = (_random(*shape, seed=i).requires_grad_() for i, shape in enumerate([(4, 5), (9, 5), (9,)]))
    assert torch.autograd.gradcheck(lambda x, w, b: encode_topk(x, w, b, 3)[1], (x, weight, bias))


def test_the_wide_term_sends_gradient_to_latents_outside_the_code() -> None:
    """The objective's gradient equals a plain dense computation's, and the 4k term reaches what the k term can't."""
    model = CompresSAE(ModelConfig(dim=6, latents=20, k=2), seed=5).double()
    x = torch.nn.functional.normalize(_random(3, 6, seed=6), dim=1)
    e = x @ model.encoder_weight.T + model.encoder_bias
    order = e.detach().abs().argsort(dim=1, descending=True)
    total = torch.zeros((), dtype=torch.float64)
    for width, weight in ((2, 1.0), (8, 1 / 8)):
        mask = torch.zeros_like(e).scatter(1, order[:, :width], 1.0)
        total = total + weight * (1 - torch.cosine_similarity(x, (e * mask) @ model.atoms)).mean()
    wanted = torch.autograd.grad(total, list(model.parameters()))

    loss = cosine_losses(model, x)
    # The objective runs in float32 after the product, so compare at its precision.
    torch.autograd.backward(loss.total)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    outside = set(order[:, 2:8].reshape(-1).tolist()) - set(order[:, :2].reshape(-1).tolist())
    assert outside
    assert model.encoder_weight.grad is not None
    assert (model.encoder_weight.grad[sorted(outside)].abs().sum(dim=1) > 0).all()
