"""The short forms of ``arith`` as instructions: 32 bits become 16, then 8, by packing with saturation.

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

With another operand, x86 takes pairs of 16 bits, a sum and a code times a power of two, to 32 bits in between (pmaddwd); ARM
computes with 32 bits all the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import tvm
from tvm import tirx
from tvm.target.codegen import target_has_features
from tvm_ffi import structural_map

from qcompiler import arith
from qcompiler.backend.kernel import LANES, Epilogue
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


@dataclass(frozen=True)
class Added:
    """The other operand of an addition: its uint8 ``codes``, their zero point and their multiplier."""

    codes: Any
    zero: Any
    multiplier: Any


def codes(accumulator: Any, word: Any, epilogue: Epilogue, shift: Any, zero: Any, added: Added | None = None) -> Any:
    """The uint8 codes of int32 sums, one or a vector; ``word``: :func:`arith.short_word` of their channels.

    ``shift`` and ``zero``, and the zero point and the multiplier of what is ``added``, are one number each.
    """
    lanes = lanes_of(accumulator)

    def everywhere(value: Any) -> Any:
        return value if lanes == 1 else tirx.Broadcast(value, lanes)

    scalars = [tirx.const(int(epilogue.pre_shifted) + 2 * epilogue.left, "int32"), shift, zero]
    vectors = [accumulator, word]
    if added is not None:
        scalars[2] = arith.add_start(added.zero, added.multiplier, shift, zero, TIR)
        scalars.append(added.multiplier)
        vectors.append(added.codes)
    kind = "uint8" if lanes == 1 else f"uint8x{lanes}"
    return tirx.call_intrin(kind, _operator(), *map(everywhere, scalars), *vectors)


def expand(body: Any, target: Any) -> Any:
    """A lowered body with every call of :func:`codes` as instructions of ``target``."""
    if str(target.attrs["mtriple"]).startswith("x86"):
        widths = {"avx512bw": 16, "avx2": 8, "sse2": 4}
        lanes = next(lanes for feature, lanes in widths.items() if target_has_features(feature, target))
        form: Any = _X86(lanes, bool(target_has_features("ssse3", target)))
    else:
        form = _ARM()

    def pieces(call: Any) -> list[Any]:
        given = _Given.of(call)
        if lanes_of(given.accumulator) % _GROUP or given.rest is None:
            return [given.lane_by_lane()]
        found: list[Any] = form.convert(given, given.rest)
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
class _Given:
    """The arguments of a call, of which vectors can be had.

    ``start``: the zero point, or with another operand :func:`arith.add_start`.
    """

    pre_shifted: bool
    left: int
    shift: Any
    start: Any
    accumulator: Any
    word: Any
    other: Any = None
    other_multiplier: Any = None

    @classmethod
    def of(cls, call: Any) -> _Given:
        """Of a call as :func:`codes` makes it."""
        flag, shift, start, *arguments = call.args
        known = _scalar(flag)
        assert isinstance(known, tirx.IntImm)
        left, shifted = divmod(int(known), 2)
        scalars = (bool(shifted), left, shift, start)
        if len(arguments) == 2:
            return cls(*scalars, *arguments)
        other_multiplier, accumulator, word, other = arguments
        return cls(*scalars, accumulator, word, other, other_multiplier)

    @property
    def lanes(self) -> int:
        return lanes_of(self.accumulator)

    @property
    def rest(self) -> _Rest | None:
        """The scalars; None where lanes differ."""
        multiplier = None if self.other is None else _scalar(self.other_multiplier)
        rest = _Rest(_scalar(self.shift), _scalar(self.start), multiplier)
        unknown = rest.shift is None or rest.start is None or (multiplier is None and self.other is not None)
        return None if unknown else rest

    def lane_by_lane(self) -> Any:
        """The codes by the formula of :mod:`arith`."""
        moved = self.moved(self.accumulator)
        sums = (moved, _multiplier(self.word), _first_shift(self.word) if self.pre_shifted else None)
        if self.other is None:
            found = arith.requantize_short(*sums, self.shift, self.start, TIR)
        else:
            other = converted(self.other, "int32")
            found = arith.requantize_add_short(*sums, other, self.other_multiplier, self.start, self.shift, TIR)
        return converted(found, "uint8")

    def moved(self, sums: Any) -> Any:
        return sums << _number(self.left, lanes_of(sums)) if self.left else sums

    def part(self, first: int, lanes: int) -> _Given:
        """Some lanes."""
        names = ("shift", "start", "accumulator", "word", *(("other", "other_multiplier") if self.other is not None else ()))
        return replace(self, **{name: _slice(getattr(self, name), first, lanes) for name in names})

    def vectors(self, places: Sequence[int], lanes: int) -> tuple[list[Any], list[Any]]:
        """Those that begin at ``places``: sums after the first shift, and their multipliers."""
        words = [_slice(self.word, place, lanes) for place in places]
        sums = [self.moved(_slice(self.accumulator, place, lanes)) for place in places]
        if self.pre_shifted:
            sums = [total >> _first_shift(word) for total, word in zip(sums, words, strict=True)]
        return sums, [_multiplier(word) for word in words]


@dataclass(frozen=True)
class _Rest:
    """The scalars of a call, as vectors want them."""

    shift: Any
    start: Any
    other_multiplier: Any

    def zeros(self, lanes: int) -> Any:
        return tirx.Broadcast(self.start.astype("int16"), lanes)

    def starts(self, lanes: int) -> Any:
        return tirx.Broadcast(self.start, lanes)

    def other_factors(self, lanes: int) -> Any:
        """The multiplier of 16 bits that the other operand has, in the upper half of int32."""
        return tirx.Broadcast(self.other_multiplier << (16 - arith.other_places(self.shift)), lanes)

    def other_power(self, lanes: int) -> Any:
        """By which the other operand's codes are multiplied: a product takes one instruction, a shift of a vector two."""
        power = tirx.const(1, "int32") << arith.other_places(self.shift)
        return tirx.Broadcast(power.astype("uint16"), lanes)

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


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _picked(value: Any, places: Sequence[int]) -> Any:
    """The lanes at ``places`` of a vector or of one number."""
    return tirx.Broadcast(value, len(places)) if lanes_of(value) == 1 else tirx.Shuffle([value], list(places))


def _joined(pieces: Sequence[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else tirx.Shuffle(list(pieces), list(range(sum(map(lanes_of, pieces)))))


_X86_NAMES: Final = {
    16: ("avx512.packssdw.512", "avx512.pmulh.w.512", "avx512.packuswb.512", "avx512.pmul.hr.sw.512", "avx512.pmaddw.d.512"),
    8: ("avx2.packssdw", "avx2.pmulh.w", "avx2.packuswb", "avx2.pmul.hr.sw", "avx2.pmadd.wd"),
    4: ("sse2.packssdw.128", "sse2.pmulh.w", "sse2.packuswb.128", "ssse3.pmul.hr.sw.128", "sse2.pmadd.wd"),
}


@dataclass(frozen=True)
class _X86:
    """``lanes`` of 32 bits in the widest vectors; ``rounds``: whether there is a product that rounds."""

    lanes: int
    rounds: bool

    def convert(self, given: _Given, rest: _Rest) -> list[Any]:
        """Four vectors at a time or two, else halves of one, else four lanes with themselves."""
        pieces: list[Any] = []
        done, total = 0, given.lanes
        while done < total:
            sizes = [(count, lanes) for lanes in _X86_NAMES if lanes <= self.lanes for count in (4, 2)]
            fitting = (size for size in sizes if size[0] * size[1] <= total - done)
            count, lanes = next(fitting, (1, _GROUP))
            part = given.part(done, count * lanes)
            sums, factors = part.vectors(range(0, count * lanes, lanes), lanes)
            pairs = range(0, count, 2)
            if part.other is None:
                high = [self._products(sums[i : i + 2], factors[i : i + 2], lanes) for i in pairs]
                words = [self._shifted(value, rest, lanes) + rest.zeros(2 * lanes) for value in high]
            else:
                others = [_slice(part.other, i * lanes, min(2, count) * lanes) for i in pairs]
                high = [self._totals(sums[i : i + 2], factors[i : i + 2], others[i // 2], rest, lanes) for i in pairs]
                words = [self._shifted(value, rest, lanes) for value in high]
            pieces.append(self._packed(words, lanes, count * lanes))
            done += count * lanes
        return pieces

    @staticmethod
    def _words(pair: list[Any], lanes: int) -> Any:
        """One vector of 16 bits of two of 32 bits (or of one, twice): within 128 bits, four of one before four of the other."""
        return tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", f"llvm.x86.{_X86_NAMES[lanes][0]}", pair[0], pair[-1])

    def _products(self, sums: list[Any], factors: list[Any], lanes: int) -> Any:
        """The upper halves of the products of one or two vectors."""
        name = f"llvm.x86.{_X86_NAMES[lanes][1]}"
        return tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", name, self._words(sums, lanes), self._words(factors, lanes))

    def _totals(self, sums: list[Any], factors: list[Any], codes: Any, rest: _Rest, lanes: int) -> Any:
        """The upper halves of what one or two vectors are with the other operand's ``codes`` added."""
        groups = range(lanes // _GROUP)
        name = f"llvm.x86.{_X86_NAMES[lanes][4]}"
        dwords = tirx.reinterpret(_vector("int32", len(sums) * len(groups)), codes)
        order = [vector * len(groups) + group for group in groups for vector in (0, len(sums) - 1)]
        ordered = tirx.reinterpret(f"uint8x{2 * lanes}", _picked(dwords, order))
        others = tirx.reinterpret(f"int16x{2 * lanes}", converted(ordered, "uint16") * rest.other_power(2 * lanes))
        words = self._words(sums, lanes)
        totals = []
        for half, factor in enumerate(factors):
            places = [8 * group + 4 * half + place for group in groups for place in range(_GROUP)]
            both = tirx.Shuffle([words, others], [start + place for place in places for start in (0, 2 * lanes)])
            weights = tirx.reinterpret(f"int16x{2 * lanes}", factor | rest.other_factors(lanes))
            total = tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, both, weights) + rest.starts(lanes)
            totals.append(total >> _number(16, lanes))
        return self._words(totals, lanes)

    def _shifted(self, high: Any, rest: _Rest, lanes: int) -> Any:
        """Upper halves, shifted by what is left of the shift and rounded."""
        if not self.rounds:
            return rest.shifted(high, 2 * lanes)
        return tirx.call_llvm_pure_intrin(
            f"int16x{2 * lanes}", f"llvm.x86.{_X86_NAMES[lanes][3]}", high, rest.factor(31, 2 * lanes)
        )

    @staticmethod
    def _packed(words: list[Any], lanes: int, wanted: int) -> Any:
        """The codes of one or two vectors of 16 bits, the first ``wanted`` of them."""
        pack_bytes = f"llvm.x86.{_X86_NAMES[lanes][2]}"
        groups = lanes // _GROUP
        if len(words) == 2:
            result = tirx.call_llvm_pure_intrin(f"uint8x{4 * lanes}", pack_bytes, *words)
            order = [4 * group + vector for vector in range(4) for group in range(groups)]
        elif lanes == _GROUP:  # the lower half is what is wanted
            result = tirx.call_llvm_pure_intrin("uint8x16", pack_bytes, words[0], words[0])
            return _slice(result, 0, wanted)
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

    def convert(self, given: _Given, rest: _Rest) -> list[Any]:
        """Eight lanes at a time; four are done twice."""
        pieces: list[Any] = []
        if given.other is not None:
            return [given.part(first, min(given.lanes - first, LANES)).lane_by_lane() for first in range(0, given.lanes, LANES)]
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
