from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from compressae_qdrant.kernels import sparse_decode
from compressae_qdrant.model.pursuit import _most_valuable, _normal_equations, pursue, refit

from .support.data import unit_rows


def _reference(x: np.ndarray, atoms: np.ndarray, k: int) -> np.ndarray:
    """Return the residual of one vector after orthogonal matching pursuit by its definition, in float64."""
    support: list[int] = []
    residual = x
    for _ in range(k):
        correlation = np.abs(atoms @ residual)
        correlation[support] = -1
        support.append(int(correlation.argmax()))
        basis = atoms[support].T
        residual = x - basis @ np.linalg.lstsq(basis, x, rcond=None)[0]
    return residual


def test_one_atom_per_step_is_orthogonal_matching_pursuit() -> None:
    # Items are sums of few atoms, so that rounding to bfloat16 cannot change the selection.
    atoms = unit_rows(60, 32, 0)
    random = np.random.default_rng(1)
    mix = np.zeros((20, 60))
    for row in mix:
        row[random.choice(60, 4, replace=False)] = random.choice([-1, 1], 4) * random.uniform(1, 3, 4)
    x = normalize(torch.from_numpy(mix.astype(np.float32)) @ atoms, dim=1)
    indices, values = pursue(x, atoms, 6, atoms_per_step=1)
    error = (x - sparse_decode(indices, values, atoms)).norm(dim=1)
    expected = [np.linalg.norm(_reference(row, atoms.double().numpy(), 6)) for row in x.double().numpy()]
    assert float(error.mean()) == pytest.approx(float(np.mean(expected)), abs=0.01)


@pytest.mark.parametrize("atoms_per_step", [1, 3, 4, 16])
def test_atoms_are_selected_once_and_each_reduces_the_error(atoms_per_step: int) -> None:
    atoms, x = unit_rows(80, 16, 2), unit_rows(50, 16, 3)
    errors = []
    for k in (2, 5, 12):
        indices, values = pursue(x, atoms, k, atoms_per_step)
        assert all(len(set(row)) == k for row in indices.tolist())
        assert torch.isfinite(values).all()
        errors.append(float((x - sparse_decode(indices, values, atoms)).norm(dim=1).mean()))
    assert errors[0] > errors[1] > errors[2]


def test_the_atoms_whose_removal_costs_least_are_dropped() -> None:
    atoms, x = unit_rows(40, 16, 10), unit_rows(30, 16, 11)
    indices, values = pursue(x, atoms, 5, atoms_per_step=2)
    wide, _ = pursue(x, atoms, 7, atoms_per_step=1)
    kept = (x - sparse_decode(indices, values, atoms)).norm(dim=1).mean()
    arbitrary = refit(x, atoms, wide[:, 2:])
    assert kept < (x - sparse_decode(wide[:, 2:], arbitrary, atoms)).norm(dim=1).mean()
    # The atom is dropped whose removal costs least of all four.
    support = torch.tensor([[0, 3, 9, 12], [5, 1, 7, 30]])
    gram, moments = _normal_equations(x[:2], atoms, support)
    for row, left in enumerate(_most_valuable(gram, moments, 3).tolist()):
        errors = {}
        for dropped in range(4):
            rest = [place for place in range(4) if place != dropped]
            subset = support[row : row + 1, rest]
            values = refit(x[row : row + 1], atoms, subset)
            errors[dropped] = float((x[row] - sparse_decode(subset, values, atoms)[0]).norm())
        assert {0, 1, 2, 3} - set(left) == {min(errors, key=errors.__getitem__)}


def test_with_k_equal_to_h_reconstruction_is_exact() -> None:
    atoms, x = unit_rows(8, 4, 4), unit_rows(5, 4, 5)
    indices, values = pursue(x, atoms, 8, 3)
    torch.testing.assert_close(sparse_decode(indices, values, atoms), x, atol=1e-3, rtol=0)


def test_equal_atoms_and_zero_atoms_give_finite_values() -> None:
    atoms = unit_rows(12, 6, 6)
    atoms[1] = atoms[0]
    atoms[2] = 0
    _, values = pursue(torch.cat([atoms[:1], unit_rows(4, 6, 7)]), atoms, 6, 2)
    assert torch.isfinite(values).all()


def test_refit_is_least_squares() -> None:
    atoms, x = unit_rows(20, 10, 8), unit_rows(3, 10, 9)
    support = torch.tensor([[0, 5, 7], [1, 2, 3], [19, 4, 11]])
    for row, values in enumerate(refit(x, atoms, support)):
        expected = np.linalg.lstsq(atoms[support[row]].numpy().T, x[row].numpy(), rcond=None)[0]
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-4)
