"""Block reconstruction: which way weights are rounded, biases and steps are learned, block by block, on calibration samples.

BRECQ (Li et al., arXiv 2102.05426): a block's result on rounded inputs is brought near the float one's, with AdaRound's soft
rounding (``tuning.soft_rounding``) on top of what ``tuning.closed_form`` chose. QDrop (Wei et al., arXiv 2203.05740): while it is
learned, half of the elements of every activation are left unrounded, another half at each step. The steps of activations are
learned with it: ranges that were calibrated on the float model are adapted to the rounded weights.

A quarter of the samples is held out: a block whose error on them did not fall stays as it was. Few steps at high rates make
things worse (ResNet-20 w2a8: 200 steps with 5 times the rate of roundings cost 1.8 dB, before blocks were checked), so rates are
low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from qcompiler.ir.graph import Array
from qcompiler.ops.table import OPERATORS
from qcompiler.progress import Progress
from qcompiler.tuning.blocks import Block, blocks
from qcompiler.tuning.closed_form import Run, entered, is_shared
from qcompiler.tuning.rates import parameter_groups
from qcompiler.tuning.simulation import SimulatedGraph
from qcompiler.tuning.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

STEPS: Final = 200
"""For each block."""
CHUNKS: Final = 4
"""Of samples in a batch."""
DROPPED: Final = 0.5
"""The share of an activation's elements that are not rounded while a block is learned."""
SOFT_RATE: Final = 1e-2
"""Of AdaRound's variables."""
RATE: Final = 0.1
"""Of biases and steps, see ``tuning.rates``."""
WARM: Final = 0.2
"""The share of the steps after which weights are driven to codes."""
HELD_OUT: Final = 4
"""One of so many samples is not learned from."""
BETAS: Final = (20.0, 2.0)
DECIDE: Final = 2.0
"""Weight of what drives to codes, for a whole block of undecided weights, in units of the loss at the beginning."""
SMALLEST: Final = 1e-12  # of a tensor's mean square, for one that is constant


@dataclass(frozen=True)
class Reconstruction:
    """How long, and from which seed."""

    steps: int = STEPS
    seed: int = 0

    def __call__(self, simulated: SimulatedGraph, samples: list[Array], progress: Progress | None = None) -> None:
        """Change the parameters of ``simulated`` for ``samples``, one float32 array ``[S, ...]`` for each input."""
        graph = simulated.graph
        generator = torch.Generator().manual_seed(self.seed)
        constants = {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants}
        exact, rounded = entered(simulated, samples)
        parts = blocks(graph)
        for block in parts:
            exact.update(_float_outputs(block, exact, constants))
            if block.layers:
                before = {name: tensor.clone() for name, tensor in simulated.state_dict().items()}
                error = _error(simulated, block, exact, rounded)
                self._learn(simulated, block, exact, rounded, constants, generator)
                if _error(simulated, block, exact, rounded) >= error:
                    simulated.load_state_dict(before)
            rounded.update(_rounded_outputs(simulated, block, rounded))
            end = simulated.position[block.nodes[-1].output.name]
            for name in [name for name in exact if simulated.last[name] <= end]:
                del exact[name], rounded[name]
            if progress:
                progress.advance("reconstruct", 1, len(parts))

    def _learn(
        self,
        simulated: SimulatedGraph,
        block: Block,
        exact: Run,
        rounded: Run,
        constants: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> None:
        soft = []
        for node in block.nodes:
            if node.output.name in simulated.bias_of and not is_shared(simulated.graph, node):
                weights = simulated.weight(node)
                if weights.bits < 8:
                    soft.append((weights, weights.soften(constants[node.inputs[1]])))
        frozen = {id(w.weight) for w, _ in soft} | {id(w.scale) for w, _ in soft}
        groups = [g for g in learnable(simulated, block) if id(g["params"][0]) not in frozen]
        groups += [{"params": list(variables.parameters()), "lr": SOFT_RATE} for _, variables in soft]
        optimizer = torch.optim.Adam(groups)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        count = sum(variables.v.numel() for _, variables in soft)
        power = {name: _variance(exact[name]) for name in block.outputs}
        unit = 0.0
        chunks = len(exact[block.outputs[0]]) - held_out(len(exact[block.outputs[0]]))
        for step in range(self.steps):
            chosen = torch.randperm(chunks, generator=generator)[:CHUNKS].tolist()
            values = {}
            for name in block.inputs:
                a, b = (torch.cat([run[name][i] for i in chosen]) for run in (exact, rounded))
                values[name] = _mixed(a, b, generator)

            def dropping(name: str, x: Tensor) -> Tensor:
                return x if name in block.outputs else _mixed(x, simulated.rounded(name, x), generator)

            simulated.run(block.nodes, values, dropping)
            loss = torch.zeros(())
            for name in block.outputs:
                target = torch.cat([exact[name][i] for i in chosen])
                loss = loss + (values[name] - target).square().mean() / power[name]
            unit = unit or float(loss.detach())
            if soft and step >= WARM * self.steps:
                share = (step / self.steps - WARM) / (1.0 - WARM)
                beta = BETAS[1] + (BETAS[0] - BETAS[1]) * (1.0 - share)
                loss = loss + DECIDE * unit / count * sum(variables.undecided(beta) for _, variables in soft)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
        for weights, _ in soft:
            weights.harden()


def learnable(simulated: SimulatedGraph, block: Block) -> list[dict[str, Any]]:
    """The parameters of a block with their rates, without the steps of values that other blocks have to do with."""
    inside = {node.output.name for node in block.nodes} - set(block.outputs)
    outside = {index for name, index in simulated.quantizer_of.items() if name not in inside}
    fixed = {id(simulated.activation_quantizers()[index].scale) for index in outside}
    return [group for group in parameter_groups(simulated, block.nodes, RATE) if id(group["params"][0]) not in fixed]


def held_out(chunks: int) -> int:
    """How many of so many chunks are not learned from: the last ones; none where there are few."""
    return chunks // HELD_OUT


@torch.no_grad()
def _error(simulated: SimulatedGraph, block: Block, exact: Run, rounded: Run) -> float:
    """The squared error of what a block gives on rounded inputs, relative to the variance, on what is held out."""
    chunks = len(exact[block.outputs[0]])
    power = {name: _variance(exact[name]) for name in block.outputs}
    total = 0.0
    for chunk in range(chunks - held_out(chunks), chunks) if held_out(chunks) else range(chunks):
        values = {name: rounded[name][chunk] for name in block.inputs}
        simulated.run(block.nodes, values)
        total += sum(float((values[name] - exact[name][chunk]).square().mean()) / power[name] for name in block.outputs)
    return total


def _mixed(exact: Tensor, rounded: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(exact.shape, generator=generator) < DROPPED, exact, rounded)


def _variance(stored: Stored) -> float:
    variance, square = (float(torch.stack(found).mean()) for found in zip(*map(_moments, stored), strict=True))
    return max(variance, SMALLEST * square) or 1.0  # nothing is lost of what is always zero


def _moments(part: Tensor) -> tuple[Tensor, Tensor]:
    return part.var(unbiased=False), part.square().mean()


@torch.no_grad()
def _float_outputs(block: Block, run: Run, constants: Mapping[str, Tensor]) -> Run:
    found: dict[str, list[Tensor]] = {name: [] for name in block.outputs}
    for chunk in range(len(next(iter(run.values())))):
        values = {name: run[name][chunk] for name in block.inputs}
        for node in block.nodes:
            operands = [values[name] if name in values else constants[name] for name in node.inputs]
            values[node.output.name] = OPERATORS[node.op].run_float(node, operands)
        for name, parts in found.items():
            parts.append(values[name])
    return {name: Stored.of(parts) for name, parts in found.items()}


@torch.no_grad()
def _rounded_outputs(simulated: SimulatedGraph, block: Block, run: Run) -> Run:
    found: dict[str, list[Tensor]] = {name: [] for name in block.outputs}
    for chunk in range(len(next(iter(run.values())))):
        values = {name: run[name][chunk] for name in block.inputs}
        simulated.run(block.nodes, values)
        for name, parts in found.items():
            parts.append(values[name])
    return {name: Stored.of(parts, simulated.quantizer(name)) for name, parts in found.items()}
