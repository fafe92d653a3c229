"""The fused kernels against their torch references: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from compressae_qdrant import kernels
from compressae_qdrant.kernels import dispatch, torch_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _triton(name: str) -> Any:
    pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not tested")
    return importlib.import_module(f"compressae_qdrant.kernels.triton_{name}")


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _awkward_rows(n: int, h: int) -> torch.Tensor:
    """Return rows with ties, zeros, equal entries, and one entry far above the rest."""
    e = _random(n, h, seed=h)
    e[0] = e[0].round()
    e[1 % n] = 0
    e[2 % n] = -1
    e[3 % n] *= 1e-30
    e[3 % n, h // 2] = -5
    return e.bfloat16()


@pytest.mark.parametrize(("n", "h", "w"), [(6, 100, 24), (3, 4096, 128), (4, 30, 30), (4, 17, 1), (5, 1500, 40)])
def test_selection_equals_the_reference(n: int, h: int, w: int) -> None:
    """Widths that are not powers of two, the whole row, and ties, where the lower latent comes first."""
    select = _triton("select").select_entries
    e = _awkward_rows(n, h).to(DEVICE)
    results = []
    for function in (torch_reference.select_entries, select):
        dense, entries = e.clone(), torch.full((n, w), -1, dtype=torch.int32, device=DEVICE)
        function(dense, entries, mask=True)
        results.append((entries, dense))
        untouched = e.clone()
        function(untouched, entries, mask=False)
        assert torch.equal(untouched, e)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    indices, values = torch_reference.unpack(results[1][0])
    assert torch.equal(values, e.float().gather(1, indices))
    assert torch.equal(values.abs().sort(descending=True).values, e.float().abs().topk(w, dim=1).values)


@pytest.mark.parametrize(("n", "h", "k"), [(6, 100, 24), (3, 4096, 32), (4, 30, 30), (4, 17, 1), (5, 1500, 40)])
def test_selection_from_float32_is_exact(n: int, h: int, k: int) -> None:
    e = _awkward_rows(n, h).float()
    e[-1] = 1 + 1e-7 * _random(h, seed=3)  # one octave, told apart by the last bits only
    e[-1, ::2] *= -1
    e = e.to(DEVICE)
    results = []
    for function in (torch_reference.top_entries, _triton("select").top_entries):
        indices = torch.full((n, k), -1, device=DEVICE)
        values = torch.full((n, k), 9.0, device=DEVICE)
        function(e, indices, values)
        results.append((indices, values))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(values.abs().sort(descending=True).values, e.abs().topk(k, dim=1).values)


@pytest.mark.parametrize(
    ("n", "h", "w", "steps"), [(6, 100, 11, (4, 4, 3)), (4, 4096, 36, (16, 1, 19)), (4, 9, 9, (4, 5))]
)
def test_the_next_atoms_equal_the_reference(n: int, h: int, w: int, steps: tuple[int, ...]) -> None:
    """Ties, rows of zeros, and all latents of a row; no latent is selected twice."""
    results = []
    for function in (torch_reference.pick_atoms, _triton("pursuit").pick_atoms):
        support = torch.full((n, w), -1, device=DEVICE)
        chosen = 0
        for number, count in enumerate(steps):
            function(_awkward_rows(n, h).roll(number, 1).to(DEVICE), support, chosen, count)
            chosen += count
        results.append(support)
    assert torch.equal(*results)
    assert all(len(set(row)) == w for row in results[1].tolist())


def _supports(n: int, h: int, d: int, w: int) -> tuple[torch.Tensor, ...]:
    atoms = normalize(_random(h, d, seed=2), dim=1)
    atoms[1], atoms[2] = atoms[0], 0  # an atom that occurs twice, and an atom of zeros
    x = normalize(_random(n, d, seed=1), dim=1)
    support = torch.stack([torch.randperm(h, generator=torch.Generator().manual_seed(row))[:w] for row in range(n)])
    support[0, :3] = torch.tensor([1, 2, 0])
    support[0, 3:] = torch.arange(3, w)
    gram = atoms @ atoms.t()
    gram.diagonal().add_(1e-6)
    return x.to(DEVICE), atoms.to(DEVICE), gram.to(DEVICE), support.to(DEVICE)


@pytest.mark.parametrize(
    ("n", "h", "d", "w", "wide", "k"),
    [(5, 60, 40, 11, 11, 8), (3, 300, 96, 36, 36, 32), (4, 50, 33, 20, 7, 7), (2, 90, 100, 70, 70, 64),
     (3, 9, 16, 9, 9, 1)],
)  # fmt: skip
def test_least_squares_with_dropping_equals_the_reference(n: int, h: int, d: int, w: int, wide: int, k: int) -> None:
    x, atoms, gram, support = _supports(n, h, d, w)
    moments = x @ atoms.t()
    results = [
        function(gram, moments, support, wide, k)
        for function in (torch_reference.solve_least_squares, _triton("pursuit").solve_least_squares)
    ]
    for row in range(1, n):
        torch.testing.assert_close(results[0][0][row], results[1][0][row])
        torch.testing.assert_close(results[0][1][row], results[1][1][row], atol=2e-4, rtol=1e-3)
    # The same atom twice in one support: the reference shares its value between the two, and may drop both as needless.
    errors = [float((x[0] - (values[0].unsqueeze(1) * atoms[indices[0]]).sum(0)).norm()) for indices, values in results]
    assert errors[1] < errors[0] + 1e-3
    assert torch.isfinite(results[1][1]).all()
    if k < wide:
        assert 2 not in results[1][0][0].tolist()


@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_the_gram_of_codes_is_the_dense_product_in_any_order(kernel: str) -> None:
    n, h, k = 50, 37, 7
    indices = torch.stack([torch.randperm(h, generator=torch.Generator().manual_seed(row))[:k] for row in range(n)])
    indices, values = indices.to(DEVICE), _random(n, k, seed=5).to(DEVICE)
    module = torch_reference if kernel == "torch" else _triton("pursuit")
    totals = []
    for order in (torch.arange(n), torch.randperm(n, generator=torch.Generator().manual_seed(1))):
        total = torch.zeros(h, h, dtype=torch.int64, device=DEVICE)
        module.add_gram(indices[order].contiguous(), values[order].contiguous(), total)
        totals.append(total)
    assert torch.equal(*totals)
    dense = torch.zeros(n, h, dtype=torch.float64, device=DEVICE).scatter_(1, indices, values.double())
    torch.testing.assert_close(totals[0].double() / torch_reference.GRAM_UNIT, dense.t() @ dense, atol=1e-8, rtol=0)


def _case(n: int, h: int, w: int, d: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = normalize(_random(n, d, seed=1), dim=1).bfloat16()
    atoms = normalize(_random(h, d, seed=2), dim=1).bfloat16()
    e = (x.float() @ atoms.float().t() + 0.1 * _random(n, h, seed=3)).bfloat16()
    e[0] = (8 * e[0]).round() / 8  # ties, at the edge of the narrow code too
    entries = torch.empty((n, w), dtype=torch.int32)
    torch_reference.select_entries(e, entries, mask=False)
    return x.to(DEVICE), atoms.to(DEVICE), entries.to(DEVICE)


def _outputs(n: int, h: int, d: int) -> dict[str, Any]:
    return {
        "losses": torch.full((n, 2), 9.0, device=DEVICE),
        "to_values": torch.zeros(n, h, dtype=torch.bfloat16, device=DEVICE),
        "last_use": torch.zeros(h, dtype=torch.int64, device=DEVICE),
        "stamp": torch.tensor(7, device=DEVICE),
        "to_hats": torch.full((2, n, d), 9.0, dtype=torch.bfloat16, device=DEVICE),
        "narrow": torch.zeros(n, h, dtype=torch.bfloat16, device=DEVICE),
    }


SHAPES = [(5, 100, 24, 40, 6), (2, 512, 128, 192, 32), (4, 30, 20, 16, 5), (3, 60, 60, 24, 20), (2, 200, 40, 200, 10)]
"""(n, h, w, d, k); in the fourth 4k is more than h, and few are powers of two."""


@pytest.mark.parametrize(("n", "h", "w", "d", "k"), SHAPES)
def test_the_objective_equals_the_reference(n: int, h: int, w: int, d: int, k: int) -> None:
    x, atoms, entries = _case(n, h, w, d)
    results = []
    for function in (torch_reference.cosine_gradients, _triton("objective").cosine_gradients):
        outputs = _outputs(n, h, d)
        function(x, entries, atoms, k, 0.125, **outputs)
        results.append(outputs)
    for name, tolerance in (("losses", 1e-4), ("to_values", 0.02), ("to_hats", 0.02), ("narrow", 0), ("last_use", 0)):
        wanted, got = results[0][name].double(), results[1][name].double()
        assert float((got - wanted).norm()) <= tolerance * float(wanted.norm()), name
    assert torch.equal(results[0]["to_values"] != 0, results[1]["to_values"] != 0)


@pytest.mark.parametrize(("n", "h", "w", "d", "k"), SHAPES[:2])
def test_without_gradients_of_the_atoms_the_rest_is_the_same(n: int, h: int, w: int, d: int, k: int) -> None:
    x, atoms, entries = _case(n, h, w, d)
    for function in (torch_reference.cosine_gradients, _triton("objective").cosine_gradients):
        with_atoms, without = _outputs(n, h, d), _outputs(n, h, d)
        function(x, entries, atoms, k, 0.125, **with_atoms)
        function(x, entries, atoms, k, 0.125, **{**without, "to_hats": None, "narrow": None})
        assert torch.equal(with_atoms["to_values"], without["to_values"])


@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_gradients_of_the_objective_against_float64(kernel: str) -> None:
    """The reference is autograd of the definition in float64; the remaining error is rounding to bfloat16."""
    n, h, w, d, k = 4, 200, 48, 96, 12
    x, atoms, entries = _case(n, h, w, d)
    outputs = _outputs(n, h, d)
    module = torch_reference if kernel == "torch" else _triton("objective")
    module.cosine_gradients(x, entries, atoms, k, 0.125, **outputs)

    indices, values = (part.to(DEVICE) for part in torch_reference.unpack(entries))
    exact, dictionary = x.double(), atoms.double().requires_grad_()
    value = values.double().requires_grad_()
    order = values.abs().sort(dim=1, descending=True, stable=True).indices
    kept = torch.zeros_like(value).scatter(1, order[:, :k], 1.0)
    losses = []
    for mask in (kept, torch.ones_like(kept)):
        x_hat = (dictionary[indices] * (value * mask).unsqueeze(2)).sum(1)
        losses.append(1 - torch.cosine_similarity(exact, x_hat))
    to_value, to_atoms = torch.autograd.grad((losses[0] + 0.125 * losses[1]).sum(), (value, dictionary))

    torch.testing.assert_close(outputs["losses"].double(), torch.stack(losses, 1).detach(), atol=1e-5, rtol=1e-4)
    got = outputs["to_values"].double().gather(1, indices)
    assert float((got - to_value).norm() / to_value.norm()) < 0.01
    wide = torch.zeros(n, h, dtype=torch.float64, device=DEVICE).scatter(1, indices, values.double())
    both = wide.t() @ outputs["to_hats"][0].double() + outputs["narrow"].double().t() @ outputs["to_hats"][1].double()
    assert float((both - to_atoms).norm() / to_atoms.norm()) < 0.01


@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("unit", [False, True])
def test_the_update_is_adam_between_projection_and_scaling(kernel: str, unit: bool) -> None:
    update = torch_reference if kernel == "torch" else _triton("update")
    weight = normalize(_random(9, 100, seed=1), dim=1).to(DEVICE)
    other = torch.nn.Parameter(weight.clone())
    adam = torch.optim.Adam([other], lr=1e-2)
    half = torch.empty_like(weight, dtype=torch.bfloat16)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 4):
        parts = _random(3, 9, 100, seed=step).to(DEVICE)
        rate, number = torch.tensor(1e-2, device=DEVICE), torch.tensor(float(step), device=DEVICE)
        update.adam_rows(weight, half, first, second, parts, rate, number, 0.5, unit=unit)
        gradient = parts.sum(0) * 0.5
        with torch.no_grad():
            other.grad = gradient - (gradient * other).sum(1, keepdim=True) * other if unit else gradient
            adam.step()
            if unit:
                other.copy_(normalize(other, dim=1))
        torch.testing.assert_close(weight, other.detach(), atol=2e-6, rtol=1e-4)
        # Equal up to the last bit of bfloat16, because Triton's interpreter truncates where the GPU rounds.
        torch.testing.assert_close(half.float(), weight, atol=0, rtol=2**-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_gathered_rows_have_unit_norm(dtype: torch.dtype) -> None:
    rows = (3 * _random(20, 100, seed=1)).to(dtype).to(DEVICE)
    order = torch.tensor([19, 0, 0, 7], device=DEVICE)
    results = []
    for function in (torch_reference.gather_unit_rows, _triton("update").gather_unit_rows):
        out = torch.empty(4, 100, device=DEVICE)
        function(rows, order, out)
        results.append(out)
    torch.testing.assert_close(*results)
    torch.testing.assert_close(results[0].norm(dim=1), torch.ones(4, device=DEVICE))


@pytest.mark.slow
def test_every_kernel_compiles_without_a_gpu() -> None:
    """The interpreter accepts code that the compiler rejects, so all kernels are compiled to H100 machine code."""
    pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not compiled")
    code = """
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from compressae_qdrant.kernels import triton_objective, triton_pursuit, triton_select, triton_update

        def build(kernel, signature, constants, warps, stages=3):
            names = kernel.arg_names
            types = {name: "constexpr" if name in constants else signature.pop(0) for name in names}
            fixed = {(names.index(name),): value for name, value in constants.items()}
            even = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")}
            source = ASTSource(kernel, types, constexprs=fixed, attrs=even)
            options = {"num_warps": warps, "num_stages": stages}
            assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]

        build(triton_select._select_kernel, ["*i16", "*i32", "i32", "i32"], {"WIDTH": 4096, "MASK": True}, 4)
        pointers = ["*bf16", "*i32", "*bf16", "*fp32", "*bf16", "*bf16", "*bf16", "*bf16", "*i64", "*i64"]
        build(triton_objective._gradient_kernel, [*pointers, "i32", "fp32", "i32"], {
            "DIM": 768, "WIDE": 128, "PAD": 128, "CHUNK": 64, "CHUNKS": 16, "ATOMS": True, "INTERPRETED": False}, 4)
        build(triton_update._gather_kernel, ["*fp32", "*i64", "*bf16"], {"DIM": 768, "PAD": 1024}, 4)
        floats = ["*fp32", "*bf16", "*fp32", "*fp32", "*fp32", "*fp32", "*fp32", "fp32", "i32"]
        build(triton_update._adam_kernel, floats, {"DIM": 768, "PAD": 1024, "PARTS": 4, "UNIT": True}, 4)
        build(triton_select._top_kernel, ["*fp32", "*i64", "*fp32", "i32", "i32"], {"WIDTH": 4096}, 4)
        build(triton_pursuit._pick_kernel, ["*i16", "*i64", "i32", "i32", "i32", "i32"], {"WIDTH": 4096}, 4)
        solver = ["*fp32", "*fp32", "*i64", "*i64", "*fp32", "i32", "i32", "i32", "i32"]
        for pad, warps in ((32, 1), (64, 4), (128, 8)):
            build(triton_pursuit._solve_kernel, [*solver], {"DROP": True, "PAD": pad}, warps)
        build(triton_pursuit._gram_kernel, ["*i64", "*fp32", "*i64", "i32", "i32"], {"UNIT": 2.0**32, "PAD": 32}, 2)
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    caches = (dispatch._import_problem, dispatch._triton, dispatch._warn_once)
    for name in [name for name in sys.modules if name.startswith(("triton", f"{dispatch.__package__}.triton_"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("without_triton")
def test_a_gpu_without_triton_falls_back_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    status = kernels.available("cuda")
    assert status.backend == "torch"
    assert "Triton can't be used: import of triton halted" in status.reason
    with caplog.at_level(logging.WARNING, "compressae_qdrant"):
        for _ in range(2):
            assert dispatch.fused(torch.device("cuda")) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"fused kernels are not used on this GPU, so training and encoding are slower: {status.reason}"
    ]


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not tested")
    entered: list[torch.Tensor] = []

    @contextlib.contextmanager
    def noted(tensor: torch.Tensor) -> Iterator[None]:
        entered.append(tensor)
        yield

    rows, out = torch.ones(2, 4, device=DEVICE), torch.zeros(1, 4, device=DEVICE)
    monkeypatch.setattr(torch.cuda, "device_of", noted)
    dispatch._triton().gather_unit_rows(rows, torch.ones(1, dtype=torch.int64, device=DEVICE), out)
    assert entered[0] is rows
    assert out.tolist() == [[0.5] * 4]


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    _triton("update")
    dispatch._probe.cache_clear()
    assert dispatch._probe(DEVICE) == ""

    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    for broken, complaint in (
        (fail, "can't run a kernel: Failed to find C compiler"),
        (lambda *_: None, "has norm 0.0"),
    ):
        monkeypatch.setattr(dispatch._triton(), "gather_unit_rows", broken)
        dispatch._probe.cache_clear()
        assert complaint in dispatch._probe(DEVICE)
    dispatch._probe.cache_clear()


def test_the_backend_and_its_reason() -> None:
    assert kernels.available("cpu") == kernels.Status("torch", "fused kernels are for CUDA, and the device is cpu")
    assert dispatch.fused(torch.device("cpu")) is None
    if not torch.cuda.is_available():
        assert "torch finds no CUDA device" in kernels.available("cuda").reason
