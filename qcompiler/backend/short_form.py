"""``arith.requantize_short`` as instructions: 32 bits become 16, then 8, by packing with saturation.

TVM vectorizes expressions lane by lane, but packing takes two vectors and gives one. So an epilogue holds a call of an operator
of our own (:func:`codes`), which becomes a call on whole vectors, and :func:`expand` replaces it when the kernel is lowered.

What is left of the shift is a product with a power of two that rounds. SSE2 has none and shifts. Beside the first shift, which is
one instruction for each vector of 32 bits:

======  ================================================  ==========================================
        16 bits                                           8 bits
======  ================================================  ==========================================
x86     packssdw, pmulhw, pmulhrsw, paddw                 packuswb, and one permutation
ARM     sqxtn, sqdmulh (twice the half), sqrdmulh, add    sqxtun
======  ================================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import tvm
from tvm import tirx
from tvm.target.codegen import target_has_features
from tvm_ffi import structural_map

from qcompiler import arith
from qcompiler.backend.tir import TIR, converted, lanes_of

_NAME: Final = "qcompiler.requantize_short"
_PURE: Final = 1  # TVM's CallEffectKind
_GROUP: Final = 4  # 32-bit lanes of 128 bits, within which x86 packs


def _operator() -> Any:
    """The operator, registered on first use."""
    if _NAME not in tvm.ir.Op.list_op_names():
        tvm.ir._ffi_api.RegisterOp(_NAME, "")
        tvm.ir.register_op_attr(_NAME, "TVectorizable", True)
        tvm.ir.register_op_attr(_NAME, "TCallEffectKind", _PURE)
    return tvm.ir.Op.get(_NAME)


def codes(accumulator: Any, word: Any, pre_shifted: bool, shift: Any, zero: Any) -> Any:
    """The uint8 codes of int32 sums, one or a vector; ``word``: :func:`arith.short_word` of their channels.

    ``pre_shifted``: whether any first shift is other than 0; ``shift`` and ``zero`` are one number each.
    """
    lanes = lanes_of(accumulator)

    def everywhere(value: Any) -> Any:
        return value if lanes == 1 else tirx.Broadcast(value, lanes)

    scalars = (tirx.const(int(pre_shifted), "int32"), shift, zero)
    return tirx.call_intrin(
        "uint8" if lanes == 1 else f"uint8x{lanes}", _operator(), accumulator, word, *map(everywhere, scalars)
    )


def expand(body: Any, target: Any) -> Any:
    """A lowered body with every call of :func:`codes` as instructions of ``target``."""
    if str(target.attrs["mtriple"]).startswith("x86"):
        widths = {"avx512bw": 16, "avx2": 8, "sse2": 4}
        lanes = next(lanes for feature, lanes in widths.items() if target_has_features(feature, target))
        form: Any = _X86(lanes, bool(target_has_features("ssse3", target)))
    else:
        form = _ARM()

    def pieces(call: Any) -> list[Any]:
        accumulator, word, pre_shifted, shift, zero = call.args
        flag = _scalar(pre_shifted)
        shifted = isinstance(flag, tirx.IntImm) and int(flag) != 0
        rest = _Rest(_scalar(shift), _scalar(zero))
        if lanes_of(accumulator) % _GROUP or rest.shift is None or rest.zero is None:
            first = _first_shift(word) if shifted else None
            return [converted(arith.requantize_short(accumulator, _multiplier(word), first, shift, zero, TIR), "uint8")]
        found: list[Any] = form.convert(_Sums(accumulator, word, shifted), rest)
        return found

    def replace(call: Any) -> Any:
        return _joined(pieces(call)) if _is_ours(call) else call

    def split(store: Any) -> Any:
        """Pieces are stored one by one: LLVM takes vectors of odd lengths apart."""
        index = store.indices[-1]
        if not _is_ours(store.value) or not isinstance(index, tirx.Ramp) or int(index.stride) != 1:
            return store
        first, stores = index.base, []
        for piece in pieces(store.value):
            index = tirx.Ramp(first, 1, lanes_of(piece))
            stores.append(tirx.BufferStore(store.buffer, piece, [*store.indices[:-1], index]))
            first = first + lanes_of(piece)
        return stores[0] if len(stores) == 1 else tirx.SeqStmt(stores)

    return structural_map(structural_map(body, (tirx.BufferStore, split)), (tvm.ir.Call, replace))


def _is_ours(expression: Any) -> bool:
    return isinstance(expression, tvm.ir.Call) and isinstance(expression.op, tvm.ir.Op) and expression.op.name == _NAME


def _scalar(value: Any) -> Any | None:
    """What is in every lane, None where lanes differ."""
    if isinstance(value, tirx.Broadcast):
        return value.value
    return value if lanes_of(value) == 1 else None


def _multiplier(word: Any) -> Any:
    return word & _number(0xFFFF, lanes_of(word))


def _first_shift(word: Any) -> Any:
    return word >> _number(16, lanes_of(word))


def _number(value: int, lanes: int) -> Any:
    constant = tirx.const(value, "int32")
    return constant if lanes == 1 else tirx.Broadcast(constant, lanes)


@dataclass(frozen=True)
class _Sums:
    """The sums and the constants of a call, of which vectors can be had."""

    accumulator: Any
    word: Any
    pre_shifted: bool

    @property
    def lanes(self) -> int:
        return lanes_of(self.accumulator)

    def vectors(self, places: Sequence[int], lanes: int) -> tuple[list[Any], list[Any]]:
        """Those that begin at ``places``: sums after the first shift, and their multipliers."""
        words = [_slice(self.word, place, lanes) for place in places]
        sums = [_slice(self.accumulator, place, lanes) for place in places]
        if self.pre_shifted:
            sums = [total >> _first_shift(word) for total, word in zip(sums, words, strict=True)]
        return sums, [_multiplier(word) for word in words]


@dataclass(frozen=True)
class _Rest:
    """``shift`` and ``zero`` of a call, as vectors of int16 want them."""

    shift: Any
    zero: Any

    def zeros(self, lanes: int) -> Any:
        return tirx.Broadcast(self.zero.astype("int16"), lanes)

    def factor(self, places: int, lanes: int) -> Any:
        """``2^(places - shift)``, by which a rounded product of 16 bits shifts."""
        return tirx.Broadcast((tirx.const(1, "int32") << (places - self.shift)).astype("int16"), lanes)

    def shifted(self, high: Any, lanes: int) -> Any:
        """``round_shift`` where there are no such products."""
        half = (tirx.const(1, "int32") << (self.shift - 17)).astype("int16")
        return (high + tirx.Broadcast(half, lanes)) >> tirx.Broadcast((self.shift - 16).astype("int16"), lanes)


def _slice(value: Any, first: int, lanes: int) -> Any:
    """Some lanes of a vector; of one that is loaded, only those are."""
    if isinstance(value, tirx.Broadcast):
        return tirx.Broadcast(value.value, lanes)
    if isinstance(value, tvm.ir.TensorLoad) and isinstance(value.indices[-1], tirx.Ramp):
        index = value.indices[-1]
        part = tirx.Ramp(index.base + first * index.stride, index.stride, lanes)
        return tirx.BufferLoad(value.source, [*value.indices[:-1], part])
    return value if lanes_of(value) == lanes else tirx.Shuffle([value], list(range(first, first + lanes)))


def _joined(pieces: Sequence[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else tirx.Shuffle(list(pieces), list(range(sum(map(lanes_of, pieces)))))


_X86_NAMES: Final = {
    16: ("avx512.packssdw.512", "avx512.pmulh.w.512", "avx512.packuswb.512", "avx512.pmul.hr.sw.512"),
    8: ("avx2.packssdw", "avx2.pmulh.w", "avx2.packuswb", "avx2.pmul.hr.sw"),
    4: ("sse2.packssdw.128", "sse2.pmulh.w", "sse2.packuswb.128", "ssse3.pmul.hr.sw.128"),
}


@dataclass(frozen=True)
class _X86:
    """``lanes`` of 32 bits in the widest vectors; ``rounds``: whether there is a product that rounds."""

    lanes: int
    rounds: bool

    def convert(self, given: _Sums, rest: _Rest) -> list[Any]:
        """Four vectors at a time or two, else halves of one, else four lanes with themselves."""
        pieces: list[Any] = []
        done, total = 0, given.lanes
        while done < total:
            sizes = [(count, lanes) for lanes in _X86_NAMES if lanes <= self.lanes for count in (4, 2)]
            fitting = (size for size in sizes if size[0] * size[1] <= total - done)
            count, lanes = next(fitting, (1, _GROUP))
            sums, factors = given.vectors(range(done, done + count * lanes, lanes), lanes)
            pieces.append(self._packed(sums, factors, rest, lanes))
            done += count * lanes
        return pieces

    def _packed(self, sums: list[Any], factors: list[Any], rest: _Rest, lanes: int) -> Any:
        """The codes of 1, 2 or 4 vectors."""
        pack, multiply, pack_bytes, multiply_rounded = (f"llvm.x86.{name}" for name in _X86_NAMES[lanes])
        kind = f"int16x{2 * lanes}"

        def packed(pair: list[Any]) -> Any:
            return tirx.call_llvm_pure_intrin(kind, pack, pair[0], pair[-1])

        words = []
        for first in range(0, len(sums), 2):
            high = tirx.call_llvm_pure_intrin(kind, multiply, packed(sums[first : first + 2]), packed(factors[first : first + 2]))
            if self.rounds:
                code = tirx.call_llvm_pure_intrin(kind, multiply_rounded, high, rest.factor(31, 2 * lanes))
            else:
                code = rest.shifted(high, 2 * lanes)
            words.append(code + rest.zeros(2 * lanes))
        groups = lanes // _GROUP
        if len(words) == 2:
            result = tirx.call_llvm_pure_intrin(f"uint8x{4 * lanes}", pack_bytes, *words)
            order = [4 * group + vector for vector in range(4) for group in range(groups)]
        elif lanes == _GROUP:  # the lower half is what is wanted
            result = tirx.call_llvm_pure_intrin("uint8x16", pack_bytes, words[0], words[0])
            return _slice(result, 0, len(sums) * lanes)
        else:
            halves = [_slice(words[0], first, lanes) for first in (0, lanes)]
            narrower = f"llvm.x86.{_X86_NAMES[lanes // 2][2]}"
            result = tirx.call_llvm_pure_intrin(f"uint8x{2 * lanes}", narrower, *halves)
            # Within 128 bits: both vectors' words of a group of the lower half, then of one of the upper half.
            half = groups // 2
            order = [4 * (group % half) + 2 * (group // half) + vector for vector in (0, 1) for group in range(groups)]
        if order == sorted(order):
            return result
        dwords = tirx.Shuffle([tirx.reinterpret(f"int32x{len(order)}", result)], order)
        return tirx.reinterpret(f"uint8x{4 * len(order)}", dwords)


@dataclass(frozen=True)
class _ARM:
    """Vectors of 128 bits."""

    def convert(self, given: _Sums, rest: _Rest) -> list[Any]:
        """Eight lanes at a time; four are done twice."""
        pieces: list[Any] = []
        for first in range(0, given.lanes, 2 * _GROUP):
            wanted = min(given.lanes - first, 2 * _GROUP)
            sums, factors = given.vectors([first, first + wanted - _GROUP], _GROUP)
            pieces.append(_slice(self._packed(sums, factors, rest), 0, wanted))
        return pieces

    @staticmethod
    def _packed(sums: list[Any], factors: list[Any], rest: _Rest) -> Any:
        """The codes of two vectors."""
        prefix = "llvm.aarch64.neon."
        words = _joined([tirx.call_llvm_pure_intrin("int16x4", f"{prefix}sqxtn.v4i16", part) for part in sums])
        factor = _joined([part.astype("int16x4") for part in factors])
        double = tirx.call_llvm_pure_intrin("int16x8", f"{prefix}sqdmulh.v8i16", words, factor)
        code = tirx.call_llvm_pure_intrin("int16x8", f"{prefix}sqrdmulh.v8i16", double, rest.factor(30, 8))
        return tirx.call_llvm_pure_intrin("uint8x8", f"{prefix}sqxtun.v8i8", code + rest.zeros(8))
