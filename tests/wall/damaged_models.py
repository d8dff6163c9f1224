"""ONNX models that are damaged: in their bytes, or in their structure, by what ``random.Random`` draws.

Every mutation of ``STRUCTURE`` changes a model in place. What comes out may still be valid, be invalid, or be a valid model that
asks for 2^40 elements.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.wall.seed_models import SEEDS

NUMBERS: Final = (
    -(1 << 40),
    -(1 << 31),
    -3,
    -2,
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    100,
    9999,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
)
FLOATS: Final = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"), 0.5, 3.0)
OPERATORS: Final = (
    "Relu",
    "Abs",
    "Add",
    "Softmax",
    "LSTM",
    "Loop",
    "NonZero",
    "Shape",
    "Cast",
    "Identity",
    "Einsum",
    "CumSum",
    "Conv",
)
PATHS: Final = (
    "weights.bin",
    "/etc/passwd",
    "../../../../etc/passwd",
    "/dev/zero",
    "",
    ".",
    "a/../../b",
    "model.onnx",
    "\0",
    "x" * 5000,
)


def _node(random: Random, graph: GraphProto) -> NodeProto | None:
    return random.choice(graph.node) if graph.node else None


def _integer_tensors(graph: GraphProto) -> list[TensorProto]:
    inner = [a.t for node in graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    return [t for t in (*graph.initializer, *inner) if t.data_type == TensorProto.INT64]


def _tensor(random: Random, graph: GraphProto) -> TensorProto | None:
    return random.choice(graph.initializer) if graph.initializer else None


def _data(tensor: TensorProto) -> np.ndarray[Any, Any]:
    """The tensor's data; nothing where an earlier mutation has damaged it."""
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # whatever onnx raises
        return np.zeros(0, np.int64 if tensor.data_type == TensorProto.INT64 else np.float32)


def attribute_number(random: Random, model: ModelProto) -> None:
    """One number of an attribute becomes an odd one."""
    attributes = [
        a for node in model.graph.node for a in node.attribute if a.ints or a.type in (AttributeProto.INT, AttributeProto.FLOAT)
    ]
    if not attributes:
        return
    chosen = random.choice(attributes)
    if chosen.ints:
        chosen.ints[random.randrange(len(chosen.ints))] = random.choice(NUMBERS)
    elif chosen.type == AttributeProto.INT:
        chosen.i = random.choice(NUMBERS)
    else:
        chosen.f = random.choice(FLOATS)


def attribute_length(random: Random, model: ModelProto) -> None:
    """A list of an attribute gets longer, shorter or empty."""
    lists = [a for node in model.graph.node for a in node.attribute if a.ints]
    if not lists:
        return
    chosen = random.choice(lists)
    numbers = random.choice(([], list(chosen.ints)[:-1], [*chosen.ints, 1], [*chosen.ints] * 100))
    del chosen.ints[:]
    chosen.ints.extend(numbers)


def attribute_type(random: Random, model: ModelProto) -> None:
    """An attribute becomes one of another type, or a word that nobody knows."""
    node = _node(random, model.graph)
    if node is None or not node.attribute:
        return
    index = random.randrange(len(node.attribute))
    name = node.attribute[index].name
    value: Any = random.choice((1, 1.5, "NOTHING", [1.5, 2.5], ["a", "b"], numpy_helper.from_array(np.zeros((2, 2), np.float32))))
    node.attribute[index].CopyFrom(helper.make_attribute(name, value))


def attribute_lost(random: Random, model: ModelProto) -> None:
    """An attribute goes, appears twice or gets another name."""
    node = _node(random, model.graph)
    if node is None or not node.attribute:
        return
    index = random.randrange(len(node.attribute))
    what = random.randrange(3)
    if what == 0:
        del node.attribute[index]
    elif what == 1:
        node.attribute.append(node.attribute[index])
    else:
        node.attribute[index].name = random.choice(("axis", "axes", "kernel_shape", "", "odd", "group"))


def node_lost(random: Random, model: ModelProto) -> None:
    """A node goes."""
    if model.graph.node:
        del model.graph.node[random.randrange(len(model.graph.node))]


def node_twice(random: Random, model: ModelProto) -> None:
    """A node appears twice, its results under the same or another name."""
    node = _node(random, model.graph)
    if node is not None:
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        if random.random() < 0.5:
            copy.output[0] += "_again"


def nodes_reordered(random: Random, model: ModelProto) -> None:
    """The nodes stand in another order."""
    nodes = list(model.graph.node)
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def operator_changed(random: Random, model: ModelProto) -> None:
    """A node does something else, in this domain or another."""
    node = _node(random, model.graph)
    if node is None:
        return
    if random.random() < 0.2:
        node.domain = random.choice(("com.microsoft", "ai.onnx", "ai.onnx.ml", "none.such"))
    else:
        other = _node(random, model.graph)
        assert other is not None
        node.op_type = random.choice((*OPERATORS, other.op_type, "NoSuch", ""))


def edge_changed(random: Random, model: ModelProto) -> None:
    """An operand is another tensor of the model, its own result, or none."""
    node = _node(random, model.graph)
    if node is None:
        return
    names = [o for n in model.graph.node for o in n.output] + [t.name for t in model.graph.initializer] + ["x", "", "nowhere"]
    if node.input and random.random() < 0.8:
        node.input[random.randrange(len(node.input))] = random.choice(names)
    elif random.random() < 0.5:
        node.input.append(random.choice(names))
    elif node.input:
        del node.input[-1]


def result_renamed(random: Random, model: ModelProto) -> None:
    """A result gets another name, perhaps one that there is already, or there are more or fewer results."""
    node = _node(random, model.graph)
    if node is None:
        return
    if node.output and random.random() < 0.7:
        node.output[random.randrange(len(node.output))] = random.choice(("x", "y", "", "odd name/:", "a", "b"))
    elif random.random() < 0.5:
        node.output.append("more")
    else:
        del node.output[:]


def edge_crossed(random: Random, model: ModelProto) -> None:
    """An operator is put on an edge: transposed, flattened, cast or scaled values go on."""
    node = _node(random, model.graph)
    if node is None or not node.input or not node.input[0]:
        return
    index, name = list(model.graph.node).index(node), f"crossed{len(model.graph.node)}"
    source = node.input[0]
    between = random.choice(
        (
            helper.make_node("Transpose", [source], [name]),
            helper.make_node("Flatten", [source], [name]),
            helper.make_node("Cast", [source], [name], to=random.choice((1, 7, 9, 10, 11, 2, 16, 99))),
            helper.make_node("ReduceMax", [source], [name], keepdims=random.randrange(2)),
            helper.make_node("Neg", [source], [name]),
            helper.make_node("Mul", [source, source], [name]),
            helper.make_node("Softmax", [source], [name]),
        )
    )
    nodes = [*list(model.graph.node)[:index], between, *list(model.graph.node)[index:]]
    nodes[index + 1].input[0] = name
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def size_in_tensor(random: Random, model: ModelProto) -> None:
    """A size, pad, repeat or axis that stands in a tensor becomes odd."""
    tensors = _integer_tensors(model.graph)
    if not tensors:
        return
    tensor = random.choice(tensors)
    numbers = np.array(_data(tensor).reshape(-1))
    what = random.randrange(5)
    if what == 0:
        numbers = numbers[:-1]
    elif what == 1:
        numbers = np.concatenate([numbers, numbers])
    elif numbers.size:
        numbers[random.randrange(numbers.size)] = random.choice(NUMBERS)
    same = what >= 2 and numbers.size == 1 and not tensor.dims
    tensor.CopyFrom(numpy_helper.from_array(numbers.reshape(()) if same else numbers, tensor.name))


def tensor_shape(random: Random, model: ModelProto) -> None:
    """An initializer says another shape than its data has."""
    tensor = _tensor(random, model.graph)
    if tensor is None:
        return
    if tensor.dims and random.random() < 0.7:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(NUMBERS)
    elif random.random() < 0.5:
        tensor.dims.append(random.choice((1, 0, 2, 1 << 40)))
    else:
        del tensor.dims[:]


def tensor_replaced(random: Random, model: ModelProto) -> None:
    """An initializer has other data: another rank, no elements, another type."""
    tensor = _tensor(random, model.graph)
    if tensor is None:
        return
    shape = tuple(random.choice((0, 1, 1, 2, 3, 4, 8)) for _ in range(random.randrange(6)))
    kind = random.choice(
        (np.float32, np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.int8, np.bool_, np.complex64)
    )
    data = np.asarray(np.random.default_rng(random.randrange(99)).normal(size=shape) * 3).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))


def tensor_values(random: Random, model: ModelProto) -> None:
    """Weights that are NaN, infinite, zero or enormous."""
    tensor = _tensor(random, model.graph)
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return
    data = np.array(_data(tensor))
    if data.size:
        value = random.choice(FLOATS)
        if random.random() < 0.5:
            data.reshape(-1)[random.randrange(data.size)] = value
        else:
            data[...] = value
        tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))


def tensor_type(random: Random, model: ModelProto) -> None:
    """An initializer says that its bytes are of another type."""
    tensor = _tensor(random, model.graph)
    if tensor is not None:
        tensor.data_type = random.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 22, 99, -1))


def tensor_lost(random: Random, model: ModelProto) -> None:
    """An initializer goes, becomes a second one of its name, or loses its name or bytes."""
    if not model.graph.initializer:
        return
    index = random.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[index]
    what = random.randrange(4)
    if what == 0:
        del model.graph.initializer[index]
    elif what == 1:
        model.graph.initializer.append(tensor)
    elif what == 2:
        tensor.name = random.choice(("", "x", "y"))
    else:
        tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]


def tensor_outside(random: Random, model: ModelProto) -> None:
    """An initializer, or a tensor in a node, says that its data lies in a file somewhere else."""
    inner = [a.t for node in model.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    tensors = [*model.graph.initializer, *inner]
    if not tensors:
        return
    tensor = random.choice(tensors)
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": random.choice(PATHS)}
    if random.random() < 0.5:
        entries["offset"] = str(random.choice((*NUMBERS, "x")))
    if random.random() < 0.5:
        entries["length"] = str(random.choice((*NUMBERS, "x")))
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def input_shape(random: Random, model: ModelProto) -> None:
    """The input has another shape: odd sizes, another rank, no shape."""
    if not model.graph.input:
        return
    info = model.graph.input[0]
    dims = info.type.tensor_type.shape.dim
    what = random.randrange(4)
    if what == 0 or not dims:
        info.type.tensor_type.ClearField("shape")
    elif what == 1:
        dims[random.randrange(len(dims))].dim_value = random.choice(NUMBERS)
    elif what == 2:
        del dims[-1]
    else:
        dims.add().dim_value = random.choice((1, 0, 3))


def input_type(random: Random, model: ModelProto) -> None:
    """The input has another type, none, or another name; or there is another input."""
    if not model.graph.input:
        return
    info = model.graph.input[0]
    what = random.randrange(4)
    if what == 0:
        info.type.tensor_type.elem_type = random.choice((0, 2, 3, 6, 7, 9, 10, 11, 16, 99))
    elif what == 1:
        info.ClearField("type")
    elif what == 2:
        info.name = random.choice(("", "y", "w1", "other"))
    else:
        model.graph.input.append(
            helper.make_tensor_value_info(random.choice(("x", "z")), 1, random.choice((("N", 3), (4, 3), ())))
        )


def output_changed(random: Random, model: ModelProto) -> None:
    """The outputs are others: an inner tensor, the input, a constant, nothing, the same one twice."""
    names = [o for n in model.graph.node for o in n.output] + [t.name for t in model.graph.initializer] + ["x", "", "nowhere"]
    if random.random() < 0.2:
        del model.graph.output[:]
        return
    extra = model.graph.output.add()
    extra.CopyFrom(helper.make_tensor_value_info(random.choice(names), 1, None))
    extra.type.tensor_type.shape.SetInParent()
    if random.random() < 0.5:
        del model.graph.output[0]


def wrong_notes(random: Random, model: ModelProto) -> None:
    """The model says wrong shapes of its inner tensors."""
    node = _node(random, model.graph)
    if node is not None and node.output:
        shape = [random.choice(NUMBERS[5:]) for _ in range(random.randrange(5))]
        model.graph.value_info.append(helper.make_tensor_value_info(node.output[0], random.choice((1, 7)), shape))


def versions(random: Random, model: ModelProto) -> None:
    """Another operator set or IR version."""
    what = random.randrange(4)
    if what == 0 and model.opset_import:
        model.opset_import[0].version = random.choice((-1, 0, 1, 5, 6, 9, 11, 13, 18, 21, 23, 25, 99, 1 << 40))
    elif what == 1:
        model.ir_version = random.choice((-1, 0, 1, 3, 4, 10, 99))
    elif what == 2:
        del model.opset_import[:]
    else:
        model.opset_import.append(
            helper.make_opsetid(random.choice(("", "none.such", "com.microsoft")), random.choice((1, 7, 99)))
        )


def long_chain(random: Random, model: ModelProto) -> None:
    """Hundreds of nodes behind the first one."""
    node = _node(random, model.graph)
    if node is None or not node.output:
        return
    index, last = list(model.graph.node).index(node), node.output[0]
    operator = random.choice(("Identity", "Relu", "Neg", "Add"))
    nodes = list(model.graph.node)
    chain = []
    steps = random.choice((20, 200))
    for step in range(6 if operator == "Add" else steps):  # which doubles: more would make rounding errors count
        chain.append(helper.make_node(operator, [last] * (2 if operator == "Add" else 1), [f"chain{step}"]))
        last = f"chain{step}"
    for later in nodes[index + 1 :]:
        for place, name in enumerate(later.input):
            later.input[place] = last if name == node.output[0] else name
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: index + 1], *chain, *nodes[index + 1 :]])


def empty(random: Random, model: ModelProto) -> None:
    """A whole part of the model is missing."""
    part = random.choice(("node", "input", "output", "initializer"))
    del getattr(model.graph, part)[:]


STRUCTURE: Final[tuple[Callable[[Random, ModelProto], None], ...]] = (
    *(attribute_number,) * 4,
    attribute_length,
    attribute_type,
    attribute_lost,
    node_lost,
    node_twice,
    nodes_reordered,
    operator_changed,
    *(edge_changed,) * 2,
    result_renamed,
    *(edge_crossed,) * 2,
    *(size_in_tensor,) * 4,
    *(tensor_shape,) * 2,
    *(tensor_replaced,) * 2,
    tensor_values,
    tensor_type,
    tensor_lost,
    tensor_outside,
    *(input_shape,) * 2,
    input_type,
    output_changed,
    wrong_notes,
    versions,
    long_chain,
    empty,
)
SUBTLE: Final = (
    *(attribute_number,) * 3,
    attribute_length,
    *(edge_crossed,) * 2,
    *(size_in_tensor,) * 2,
    tensor_replaced,
    tensor_values,
    *(input_shape,) * 2,
    operator_changed,
)
"""What often leaves a model that ONNX's checker takes."""


def damaged_bytes(random: Random, data: bytes) -> bytes:
    """A file with flipped, lost or repeated bytes."""
    content = bytearray(data)
    what = random.randrange(4)
    if what == 0:
        for _ in range(random.choice((1, 2, 8, 64))):
            content[random.randrange(len(content))] = random.randrange(256)
    elif what == 1:
        return bytes(content[: random.randrange(len(content))])
    elif what == 2:
        start, length = random.randrange(len(content)), random.choice((1, 4, 100))
        content[start:start] = content[start : start + length]
    else:
        start = random.randrange(len(content))
        del content[start : start + random.choice((1, 4, 100))]
    return bytes(content)


def damaged_model(random: Random) -> tuple[str, ModelProto | bytes]:
    """What was done, and a model in memory or the bytes of a file."""
    seed = random.choice(SEEDS)
    model = seed()
    if random.random() < 0.2:
        return f"{seed.__name__} bytes", damaged_bytes(random, model.SerializeToString())
    mutations = SUBTLE if random.random() < 0.5 else STRUCTURE
    done = [random.choice(mutations) for _ in range(random.choice((1, 1, 1, 2, 3, 5)))]
    for mutation in done:
        mutation(random, model)
    what = " ".join((seed.__name__, *(mutation.__name__ for mutation in done)))
    return what, model if random.random() < 0.3 else model.SerializeToString()
