"""Short runs of numbers, copied or added at once.

numba compiles a loop over a few dozen numbers number by number: it does not know that source and target are
not the same memory, and to ask would take longer than the loop. Here the vector is written out.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _pointer(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [start])


@intrinsic
def _copy_run(typing_context, target, start, source, source_start, count):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """``target[start : start + count] = source[source_start : source_start + count]`` of flat arrays."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        to = _pointer(context, builder, signature.args[0], *arguments[:2])
        origin = _pointer(context, builder, signature.args[2], *arguments[2:4])
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        cgutils.raw_memcpy(builder, to, origin, arguments[4], size)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def _add_run(typing_context, target, start, source, source_start, count):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The same with ``+=``; ``count`` is written out in the code that calls this."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        number = context.get_data_type(signature.args[0].dtype)
        vector = ir.VectorType(number, count.literal_value).as_pointer()
        align = context.get_abi_sizeof(number)
        to = builder.bitcast(_pointer(context, builder, signature.args[0], *arguments[:2]), vector)
        origin = builder.bitcast(_pointer(context, builder, signature.args[2], *arguments[2:4]), vector)
        total = builder.fadd(builder.load(to, align=align), builder.load(origin, align=align))
        builder.store(total, to, align=align)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, count), generate


# Calls lack the typing context that the definitions begin with.
copy_run: Any = _copy_run
add_run: Any = _add_run
