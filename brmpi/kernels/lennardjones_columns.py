"""Positions of the atoms in a list as three rows of numbers, by vector registers. Imported by the loops alone.

Vectors that gather take one load for each number, and instructions for gathering are no faster. Here a load takes all
numbers of an atom, and eight atoms are transposed within registers: half as long.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 8  # atoms at once
LONG, INT, NUMBER = ir.IntType(64), ir.IntType(32), ir.DoubleType()
FOUR, EIGHT = ir.VectorType(NUMBER, 4).as_pointer(), ir.VectorType(NUMBER, WIDTH).as_pointer()


@intrinsic
def columns(typing, places, index, start, x, y, z, first):
    """Write the positions of eight atoms of a list, x[first : first + 8] and so on.

    Parameters
    ----------
    typing : Numba's
    places : (n, 4) float64, positions, and a number that is not used
    index : uint32, the list, which has eight atoms from ``start`` on
    start : int
    x, y, z : (m,) float64, are written
    first : int
    """

    def _code(context, builder, signature, arguments):
        data = [context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, arguments)]
        places, index, start, *rows, first = data

        def _mixed(a, b, *lanes):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(lanes)), lanes))

        atoms = []
        for lane in range(WIDTH):
            at = builder.gep(index, [builder.add(start, ir.Constant(LONG, lane))], inbounds=True)
            place = builder.shl(builder.zext(builder.load(at), LONG), ir.Constant(LONG, 2))
            at = builder.bitcast(builder.gep(places, [place], inbounds=True), FOUR)
            atoms.append(builder.load(at, align=8))
        a, b, c, d = (_mixed(atoms[i], atoms[i + 4], *range(8)) for i in range(4))
        even, odd = (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)
        low, high = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)
        xz, yw = (_mixed(a, b, *even), _mixed(c, d, *even)), (_mixed(a, b, *odd), _mixed(c, d, *odd))
        for row, values in zip(rows, (_mixed(*xz, *low), _mixed(*yw, *low), _mixed(*xz, *high))):
            at = builder.bitcast(builder.gep(row, [first], inbounds=True), EIGHT)
            builder.store(values, at, align=8)
        return context.get_dummy_value()

    return types.none(places, index, types.int64, x, y, z, types.int64), _code
