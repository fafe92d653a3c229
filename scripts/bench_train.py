"""Compare the speed of training, refinement and encoding with plain torch, in one run on one device.

    python scripts/bench_train.py                        # random items; on a GPU if there is one, else small on the CPU
    python scripts/bench_train.py embeddings.npy --json result.json

The plain step follows the paper: two top-k calls, two dense decodes, autograd, Adam, atoms scaled to unit norm. Both
start from the same weights and get the same batches. Prints Markdown. Without a file, random items are generated: each
is a mixture of 16 of 8,192 random directions, with noise.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from plain_training import Clock, make_items, plain_in_bfloat16, plain_step
from torch import Tensor
from torch.nn.functional import cosine_similarity

from compressae_qdrant import CompresSAE, TrainConfig, kernels, train
from compressae_qdrant.kernels import encode_topk, scatter_outer, signed_topk, sparse_decode
from compressae_qdrant.model.config import Method
from compressae_qdrant.model.pursuit import selection_dtype
from compressae_qdrant.training.autoencoder import normalise_atoms_, project_gradient_
from compressae_qdrant.training.data import TrainingData
from compressae_qdrant.training.dictionary import NormalEquations
from compressae_qdrant.training.fused_step import FusedStep
from compressae_qdrant.training.loop import learning_rate
from compressae_qdrant.training.refinement import refine
from compressae_qdrant.training.state import TrainingState
from compressae_qdrant.training.steps import Step, make_step

Row = tuple[str, str]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements on a device."""

    items: int
    dim: int
    batch: int
    steps: int
    repeats: int
    rounds: int
    round_items: int
    encoded: dict[Method, int]


GPU = Sizes(1_010_000, 768, 100_000, 500, 10, 6, 1_000_000,
            {"encoder": 1_000_000, "refit": 1_000_000, "pursuit": 1_000_000})  # fmt: skip
CPU = Sizes(41_000, 384, 2_048, 200, 9, 2, 8_192, {"encoder": 32_768, "refit": 16_384, "pursuit": 8_192})
HELD_OUT = 10_000


class Bench:
    """The measurements on one device and its data."""

    def __init__(self, rows: npt.NDArray[Any], sizes: Sizes, device: torch.device, latents: int, k: int) -> None:
        self.rows, self.sizes, self.device, self.clock = rows, sizes, device, Clock(device)
        self.config = TrainConfig.paper(
            latents=latents, k=k, steps=sizes.steps, batch_size=min(sizes.batch, len(rows) // 2),
            held_out=HELD_OUT, validate_every=sizes.steps, round_items=sizes.round_items,
        )  # fmt: skip
        self.data = TrainingData(rows, self.config.held_out, 0, device)
        self.found: dict[str, Any] = {}

    def new_run(self) -> TrainingState:
        return TrainingState(self.config, self.data, self.device, None, None)

    def start(self) -> tuple[TrainingState, torch.optim.Adam]:
        run = self.new_run()
        return run, torch.optim.Adam(run.model.parameters(), lr=self.config.learning_rate, fused=True)

    def ours(self) -> tuple[TrainingState, Step]:
        run, adam = self.start()
        return run, make_step(
            run.model, adam, run.batches, self.config, run.group, train_atoms=True, last_use=run.last_use
        )

    def _plain(
        self, function: Callable[[CompresSAE, torch.optim.Adam, Tensor, float], None]
    ) -> tuple[TrainingState, Any]:
        """Return a new training, and a function that does one of its steps."""
        run, adam = self.start()

        def take(number: int) -> None:
            x = run.batches.batch(number * self.config.batch_size, self.config.batch_size)
            function(run.model, adam, x, learning_rate(self.config, number, self.config.steps))

        return run, take

    def take(self, step: Step, number: int) -> None:
        step(number * self.config.batch_size, learning_rate(self.config, number, self.config.steps), number + 1)

    @torch.no_grad()
    def loss(self, run: TrainingState) -> float:
        """Return the mean `1 - cos(x, x_hat)` of the held-out items, encoded by the encoder in float32."""
        lost = [1 - cosine_similarity(x, run.model(x)) for x in torch.split(run.held_out, 2048)]
        return float(torch.cat(lost).mean())

    def steps(self) -> list[Row]:
        """Return the milliseconds of a step; methods take turns, so that other load affects all alike."""
        _, step = self.ours()
        methods: dict[str, Callable[[int], None]] = {
            "plain": self._plain(plain_step)[1],
            "plain, bfloat16 autocast": self._plain(plain_in_bfloat16)[1],
            "ours": lambda number: self.take(step, number),
        }
        # A GPU runs queued work: waiting after each step would measure the wait.
        queued = 5 if self.device.type == "cuda" else 1
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(self.sizes.repeats + 4):
            for name, method in methods.items():
                started = self.clock.now()
                for ahead in range(queued):
                    method(queued * number + ahead)
                taken[name].append((self.clock.now() - started) / queued)
        seconds = {name: statistics.median(times[4:]) for name, times in taken.items()}
        self.found["step_seconds"] = seconds
        batch = self.config.batch_size
        return [
            (f"{name}: ms per step (samples/s)", f"{1e3 * s:,.1f} ({batch / s:,.0f})") for name, s in seconds.items()
        ] + [(f"{name} / ours", f"**{s / seconds['ours']:.2f}x**") for name, s in seconds.items() if name != "ours"]

    def stages(self) -> list[Row]:
        run, step = self.ours()
        for number in range(4):
            self.take(step, number)
        seconds = self._fused_stages(step) if isinstance(step, FusedStep) else self._autograd_stages(run)
        self.found["stage_seconds"] = seconds
        total = sum(seconds.values())
        rows = [(f"share of {name}", f"{s / total:.0%} ({1e3 * s:,.2f} ms)") for name, s in seconds.items()]
        return rows + self._fractions(seconds, isinstance(step, FusedStep))

    def _fused_stages(self, step: FusedStep) -> dict[str, float]:
        sums: dict[str, list[float]] = defaultdict(list)
        last = 0.0

        def note(name: str) -> None:
            nonlocal last
            now = self.clock.now()
            here[name] += now - last
            last = now

        step.on_stage = note
        for number in range(4, 4 + self.sizes.repeats):
            here: dict[str, float] = defaultdict(float)
            last = self.clock.now()
            self.take(step, number)
            for name, seconds in here.items():
                sums[name].append(seconds)
        step.on_stage = None
        return {name.replace("clearing", "batch, clearing"): statistics.median(times) for name, times in sums.items()}

    def _autograd_stages(self, run: TrainingState) -> dict[str, float]:
        """Return the times of the parts of a step, each measured separately on a batch."""
        model, wide, again = run.model, 4 * run.model.k, self.sizes.repeats
        x = run.batches.batch(0, self.config.batch_size)
        dtype = selection_dtype(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            product = self.clock.median(lambda: torch.addmm(model.encoder_bias, x, model.encoder_weight.t()), again)
            e = torch.addmm(model.encoder_bias, x, model.encoder_weight.t())
            both = self.clock.median(lambda: encode_topk(x, model.encoder_weight, model.encoder_bias, wide), again)
        indices, raw = signed_topk(e, wide)
        values, atoms = raw.float().requires_grad_(), model.atoms.detach()

        def decode() -> None:
            narrow = 1 - cosine_similarity(x, sparse_decode(indices[:, : model.k], values[:, : model.k], atoms))
            broad = 1 - cosine_similarity(x, sparse_decode(indices, values, atoms))
            torch.autograd.grad(narrow.mean() + broad.mean() / 8, values)

        plain_values = values.detach()

        def weigh() -> None:
            scatter_outer(indices, plain_values, x, model.latents)
            scatter_outer(indices, plain_values, x, model.latents)
            scatter_outer(indices[:, : model.k], plain_values[:, : model.k], x, model.latents)

        adam = torch.optim.Adam(model.parameters(), lr=1e-9, fused=True)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)

        def update() -> None:
            project_gradient_(model.atoms)
            adam.step()
            normalise_atoms_(model.atoms)

        return {
            "encoder product": product,
            "selection": max(both - product, 0.0),
            "decode and gradients": self.clock.median(decode, again),
            "weight gradients": self.clock.median(weigh, again),
            "update": self.clock.median(update, again),
        }

    def _fractions(self, seconds: dict[str, float], fused: bool) -> list[Row]:
        """Return the rates of the stages as fractions of the machine's matrix rate and copy bandwidth."""
        rate, bandwidth = self._matrix_rate(), self._copy_bandwidth()
        n, d, h, k = self.config.batch_size, self.data.dim, self.config.latents or 0, self.config.k
        one = 2 * n * d * h
        product = one / seconds["encoder product"] / rate
        rows = [
            ("measured bf16 matrix rate", f"{rate / 1e12:,.2f} TFLOP/s"),
            ("measured copy bandwidth", f"{bandwidth / 1e9:,.1f} GB/s"),
            ("encoder product, of the matrix rate", f"{product:.0%}"),
        ]
        self.found |= {"matrix_rate": rate, "copy_bandwidth": bandwidth}
        if fused:
            rows.append(("weight gradients, of the matrix rate", f"{3 * one / seconds['weight gradients'] / rate:.0%}"))
            moved = n * h * 2 * 2 + n * 4 * k * 4
            whole = 4 * one / self.found["step_seconds"]["ours"] / rate
            rows.append(("whole step's dense products, of the matrix rate", f"{whole:.0%}"))
        else:
            moved = n * h * e_bytes(self.device) + n * 4 * k * 12
            gathered = 4 * n * d * 9 * k / seconds["weight gradients"] / bandwidth
            rows.append(("weight gradients, of the copy bandwidth", f"{gathered:.0%}"))
        rows.append(("selection, of the copy bandwidth", f"{moved / seconds['selection'] / bandwidth:.0%}"))
        atoms = n * 4 * k * d * (2 if fused else 4) / seconds["decode and gradients"] / bandwidth
        rows.append(("decode and gradients: atoms read once, of the copy bandwidth", f"{atoms:.0%} (from caches)"))
        return rows

    def _matrix_rate(self) -> float:
        size = 8192 if self.device.type == "cuda" else 2048
        a, b = (torch.randn(size, size, device=self.device).bfloat16() for _ in range(2))
        a @ b
        return 2 * size**3 / min(self.clock.of(lambda: a @ b, 5) for _ in range(4))

    def _copy_bandwidth(self) -> float:
        size = (1 << 30) if self.device.type == "cuda" else (1 << 27)
        a, b = (torch.zeros(size, dtype=torch.uint8, device=self.device) for _ in range(2))
        return 2 * size / min(self.clock.of(lambda: b.copy_(a), 3) for _ in range(4))

    def whole(self) -> list[Row]:
        """Run all steps of both methods, from the same weights and on the same batches."""
        seconds, losses = {}, {}
        for name in ("ours", "plain"):
            seconds[name], losses[name] = self._all_steps(name)
        started = self.clock.now()
        self.model = train(self.rows, self.config, device=self.device)
        seconds["train()"] = self.clock.now() - started
        self.found |= {"run_seconds": seconds, "validation_loss": losses}
        n = self.config.steps
        return [
            (f"{n} steps, ours", f"{seconds['ours']:,.2f} s, validation loss {losses['ours']:.4f}"),
            (f"{n} steps, plain", f"{seconds['plain']:,.2f} s, validation loss {losses['plain']:.4f}"),
            ("validation loss, ours - plain", f"**{losses['ours'] - losses['plain']:+.4f}**"),
            (f"`train()` of {n} steps, with checks, validation and statistics", f"{seconds['train()']:,.2f} s"),
        ]

    def _all_steps(self, name: str) -> tuple[float, float]:
        """Return the seconds of all steps, and the validation loss after them."""
        if name == "plain":
            run, take = self._plain(plain_step)
        else:
            run, step = self.ours()

            def take(number: int) -> None:
                self.take(step, number)

        started = self.clock.now()
        for number in range(self.config.steps):
            take(number)
        return self.clock.now() - started, self.loss(run)

    def refinement(self) -> list[Row]:
        run = self.new_run()
        run.model.load_state_dict(self.model.state_dict())
        equations = NormalEquations.zero(run.model.latents, run.model.dim, self.device)
        size = min(self.config.round_items, len(self.data))
        refine(run, equations, 0, min(size, 1024), revive=True)  # kernels are compiled here
        rounds = self.sizes.rounds
        started = self.clock.now()
        for number in range(rounds):
            refine(run, equations, number * size, size, revive=True)
        seconds = self.clock.now() - started
        self.found["refinement"] = {"rounds": rounds, "items": size, "seconds": seconds}
        rate = rounds * size / seconds
        return [(f"{rounds} rounds of refinement on {size:,} items", f"{seconds:,.2f} s ({rate:,.0f} items/s)")]

    def encoding(self) -> list[Row]:
        rows = []
        for method, count in self.sizes.encoded.items():
            x = self.rows[:count]
            self.model.encode(x[:1024], method)
            started = self.clock.now()
            self.model.encode(x, method)
            rate = len(x) / (self.clock.now() - started)
            self.found.setdefault("encoding", {})[method] = rate
            rows.append((f"encoding by {method}", f"{rate:,.0f} items/s"))
        return rows


def e_bytes(device: torch.device) -> int:
    return torch.empty(0, dtype=selection_dtype(device)).element_size()


def about(bench: Bench) -> dict[str, str]:
    device = bench.device
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "not installed"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    status = kernels.available(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{name}, {torch.get_num_threads()} CPU threads",
        "torch": torch.__version__,
        "triton": triton,
        "kernels": f"{status.backend} ({status.reason})",
        "commit": commit.stdout.strip() or "unknown",
        "shape": f"{len(bench.rows):,} items, d={bench.data.dim}, h={bench.config.latents}, k={bench.config.k}, "
        f"batch {bench.config.batch_size:,}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="?", type=Path, help="(n, d) .npy of embeddings; default: random items")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help="torch device (default: cuda if available, else cpu)")  # fmt: skip
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--latents", type=int, default=4096, help="number of latents (default: 4096)")
    parser.add_argument("--k", type=int, default=32, help="non-zeros of a code (default: 32)")
    parser.add_argument(
        "--steps", type=int, help="steps of the complete training (default: 500 on a GPU, 200 on a CPU)"
    )
    parser.add_argument("--batch", type=int, help="batch size (default: 100,000 on a GPU, 2,048 on a CPU)")
    parser.add_argument(
        "--items", type=int, help="number of random items (default: 1,010,000 on a GPU, 41,000 on a CPU)"
    )
    parser.add_argument("--json", type=Path, help="file to write the results to as well")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    sizes = GPU if device.type == "cuda" else CPU
    changed = {"steps": args.steps, "batch": args.batch, "items": args.items}
    sizes = Sizes(**(vars(sizes) | {name: value for name, value in changed.items() if value}))
    rows = np.load(args.vectors, mmap_mode="r") if args.vectors else make_items(sizes.items, sizes.dim, device)
    bench = Bench(rows, sizes, device, args.latents, args.k)
    described = about(bench)
    print(f"Catalog: {args.vectors or 'random items made for this run'}\n")
    print(*(f"- {name}: {text}" for name, text in described.items()), sep="\n")
    print("\n| measurement | result |\n|---|---|")
    for part in (bench.steps, bench.stages, bench.whole, bench.refinement, bench.encoding):
        for what, measured in part():
            print(f"| {what} | {measured} |", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if args.json:
        args.json.write_text(json.dumps({"about": described, **bench.found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
