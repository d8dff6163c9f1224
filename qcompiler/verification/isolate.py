"""Finds the first layer of a wrong library that differs, and the smallest graph that shows it.

First every kernel by itself: one library in which each reads what the reference gives for its operands. Where one of them is
wrong, its graph alone is what is looked for. Where none is, they are right but wrong together (a plan of memory, a layout, moves
that were joined): then all values of the network become outputs, and what leads to the first wrong one is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from qcompiler.backend.artifact import BuiltLibrary
from qcompiler.backend.image import DENSE
from qcompiler.interpret import run_integer
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node, rename_inputs
from qcompiler.ir.names import Names
from qcompiler.verification.compare import Difference, first_difference
from qcompiler.verification.runner import open_runner
from qcompiler.verification.samples import Expected

Build = Callable[[Graph, str], BuiltLibrary]
"""Makes the library of an integer graph; the layout of its inputs is given."""


@dataclass(frozen=True)
class Finding:
    """``graph``, built with ``input_layout``, and ``inputs`` (codes) show the mistake; ``layer``: the user's name for it."""

    layer: str
    difference: Difference
    graph: Graph
    inputs: tuple[Array, ...]
    input_layout: str


@dataclass(frozen=True)
class Search:
    """``graph``: whose library, as ``build`` makes it with ``input_layout``, gives something else than ``wanted``."""

    graph: Graph
    wanted: Expected
    build: Build
    batch_tile: int
    input_layout: str

    def finding(self, seen: Difference) -> Finding:
        """The smallest graph that is found to differ; the whole one, with what was ``seen``, where only it does."""
        values = dict(zip((value.name for value in self.graph.inputs), self.wanted.inputs, strict=True))
        run_integer(self.graph, self.wanted.inputs, lambda node, codes: values.update({node.output.name: codes}))
        layer = _layer(self.graph, self.graph.outputs[seen.output])
        return (
            self._by_itself(values)
            or self._together(values)
            or Finding(layer, seen, self.graph, self.wanted.inputs, self.input_layout)
        )

    def _by_itself(self, values: Mapping[str, Array]) -> Finding | None:
        kernels = list(_kernels(self.graph))
        whole = _by_themselves(self.graph, kernels)
        wrong = self._compare(whole, values, [node.output.name for _, node in kernels], DENSE)
        if wrong is None:
            return None
        kernel = kernels[wrong.output]
        name = kernel[1].output.name
        alone = _by_themselves(self.graph, [kernel])
        return self._smaller(name, alone, values, DENSE) or self._found(name, wrong, whole, values, DENSE)

    def _together(self, values: Mapping[str, Array]) -> Finding | None:
        names = [node.output.name for _, node in _kernels(self.graph)]
        whole = replace(self.graph, outputs=tuple(names))
        wrong = self._compare(whole, values, names, self.input_layout)
        if wrong is None:
            return None
        name = names[wrong.output]
        cut = _leading_to(self.graph, name)
        smaller = self._smaller(name, cut, values, self.input_layout)
        return smaller or self._found(name, wrong, whole, values, self.input_layout)

    def _smaller(self, name: str, graph: Graph, values: Mapping[str, Array], layout: str) -> Finding | None:
        """The finding in ``graph``, whose only output is ``name``, where it shows the mistake as well."""
        wrong = self._compare(graph, values, [name], layout)
        return None if wrong is None else self._found(name, wrong, graph, values, layout)

    def _found(self, name: str, wrong: Difference, graph: Graph, values: Mapping[str, Array], layout: str) -> Finding:
        return Finding(_layer(self.graph, name), wrong, graph, _inputs(graph, values), layout)

    def _compare(self, graph: Graph, values: Mapping[str, Array], outputs: Sequence[str], layout: str) -> Difference | None:
        """The first of ``outputs``, named as in the network, that the library of ``graph`` gets wrong."""
        containers = [self.graph.type_of(name).dtype.container for name in outputs]
        right = tuple(values[name].astype(container) for name, container in zip(outputs, containers, strict=True))
        with open_runner(self.build(graph, layout)) as runner:
            return first_difference(runner, Expected(_inputs(graph, values), right), self.batch_tile)


def _inputs(graph: Graph, values: Mapping[str, Array]) -> tuple[Array, ...]:
    return tuple(values[value.name].astype(value.type.dtype.container) for value in graph.inputs)


def _layer(graph: Graph, name: str) -> str:
    node = graph.producer.get(name)
    return node.origin if node is not None and node.origin else name


def _kernels(graph: Graph) -> Iterator[tuple[list[Node], Node]]:
    """Every node that becomes a kernel, after the accumulators that it reads."""
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            made = (graph.producer.get(name) for name in dict.fromkeys(node.inputs))
            yield [sums for sums in made if sums is not None and sums.op in WEIGHTED], node


def _by_themselves(graph: Graph, kernels: Sequence[tuple[list[Node], Node]]) -> Graph:
    """The graph of some kernels, each of which reads inputs of the graph and gives an output."""
    names, nodes, outputs, read = Names.of(graph), list[Node](), list[str](), dict[str, None]()
    for sums, node in kernels:
        renames = {one.output.name: names.fresh(f"{one.output.name}.alone") for one in (*sums, node)}
        for one in (*sums, node):
            read.update((name, None) for name in one.inputs if name in graph.values and name not in renames)
            result = replace(one.output, name=renames[one.output.name])
            nodes.append(replace(rename_inputs(one, renames), outputs=(result,)))
        outputs.append(renames[node.output.name])
    inputs = tuple(graph.values[name] for name in read)
    whole = Graph(graph.name, graph.stage, inputs, graph.constants, (), ())
    return whole.with_nodes(nodes, outputs=outputs)


def _leading_to(graph: Graph, name: str) -> Graph:
    """The graph whose only output is ``name``, with all inputs."""
    needed, nodes = {name}, list[Node]()
    for node in reversed(graph.nodes):
        if node.output.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    return graph.with_nodes(reversed(nodes), outputs=(name,))
