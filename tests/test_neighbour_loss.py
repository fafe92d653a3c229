from __future__ import annotations

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE, TrainConfig, load_sample, train
from compressae_qdrant import scoring as similarity
from compressae_qdrant.errors import ConfigError
from compressae_qdrant.kernels import encode_topk
from compressae_qdrant.metrics import recall
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.training.autoencoder import cosine_losses, neighbour_loss
from compressae_qdrant.vectors import exact_neighbours


def _items(n: int, d: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(3)), dim=1)


def test_the_loss_is_the_divergence_of_two_softmaxes() -> None:
    x = _items(5, 6)
    model = CompresSAE(ModelConfig(dim=6, latents=20, k=3), seed=5)
    indices, values = encode_topk(x, model.encoder_weight, model.encoder_bias, 3)
    loss = neighbour_loss(x, indices, values, 20)
    (gradient,) = torch.autograd.grad(loss, [model.encoder_weight])

    e = x.double() @ model.encoder_weight.double().T + model.encoder_bias.double()
    codes = torch.nn.functional.normalize(e * torch.zeros_like(e).scatter(1, indices, 1.0), dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        p = torch.softmax(x[others].double() @ x[i].double() / 0.05, 0)
        q = torch.softmax(codes[others] @ codes[i] / 0.05, 0)
        total = total + (p * (p / q).log()).sum() / 5
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)
    assert loss.item() > 0.1
    (wanted,) = torch.autograd.grad(total, [model.encoder_weight])
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4)


def test_the_loss_is_zero_for_equal_neighbours_and_for_one_item() -> None:
    x = _items(300, 6)
    every = torch.arange(6).repeat(300, 1)
    assert float(neighbour_loss(x, every, 7 * x, 6)) == pytest.approx(0, abs=1e-5)
    values = x[:1].clone().requires_grad_()
    loss = neighbour_loss(x[:1], every[:1], values, 6)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert values.grad is not None
    assert not values.grad.any()


def test_the_objective_includes_the_weighted_loss() -> None:
    x, model = _items(9, 6), CompresSAE(ModelConfig(dim=6, latents=20, k=3), seed=5)
    without, with_it = cosine_losses(model, x), cosine_losses(model, x, 0.5)
    alone = neighbour_loss(x, *encode_topk(x, model.encoder_weight, model.encoder_bias, 3), 20)
    assert (with_it.total - without.total).item() == pytest.approx(0.5 * alone.item(), rel=1e-4)
    assert torch.equal(with_it.cosine, without.cosine)
    with pytest.raises(ConfigError, match="neighbour_weight is -1"):
        TrainConfig(neighbour_weight=-1)


def test_the_loss_improves_sparse_search() -> None:
    """With the loss, the same training gives codes that find more of an item's neighbours."""
    x, own = load_sample().embeddings[:1000], np.arange(0, 1000, 5)
    truth = exact_neighbours(x[own], x, 20, own)
    found = []
    for weight in (0.0, TrainConfig.for_encoder().neighbour_weight):
        config = TrainConfig.for_encoder(latents=256, k=8, steps=150, batch_size=256, neighbour_weight=weight)
        codes = train(x, config).encode(x, "encoder", scale="code")
        ranked = similarity.top(codes, similarity.sparse(codes[own]), 21)[0]
        rest = [[row for row in rows if row != item] for rows, item in zip(ranked.tolist(), own.tolist(), strict=True)]
        found.append(float(np.mean(recall(rest, truth.tolist(), 20))))
    assert found[1] > found[0] + 0.03
