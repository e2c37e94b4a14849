"""Numbers of one-dimensional arrays that a loop compiled by Numba reads and writes, promised not to overlap.

Without that promise LLVM compares the memory of all rows of a loop with each other before it takes vectors, and gives
up where there are many. Imported by the loops alone: Numba takes long to load.
"""

from numba import types
from numba.extending import intrinsic

STREAMS = 19  # that a loop may write


def _scopes(module, streams):
    """LLVM's names for memory that does not overlap: one for all that is read, one for each stream written."""
    domain = module.add_metadata(["brmpi"])
    return module.add_metadata([module.add_metadata([f"brmpi {stream}", domain]) for stream in streams])


def _address(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


@intrinsic
def load(typing, array, index):
    """Number of an array, which overlaps no stream that ``store`` writes.

    Parameters
    ----------
    typing : Numba's
    array : array, one-dimensional and contiguous
    index : int >= 0, not checked
    """

    def _code(context, builder, signature, arguments):
        value = builder.load(_address(context, builder, signature.args[0], *arguments))
        value.set_metadata("alias.scope", _scopes(builder.module, ["read"]))
        return value

    return array.dtype(array, types.int64), _code


@intrinsic
def look(typing, array, index):
    """Number of an array that ``store`` may write, too.

    Parameters
    ----------
    typing : Numba's
    array : array, one-dimensional and contiguous
    index : int >= 0, not checked
    """

    def _code(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments))

    return array.dtype(array, types.int64), _code


@intrinsic(prefer_literal=True)
def store(typing, array, index, value, stream):
    """Write a number of an array.

    Parameters
    ----------
    typing : Numba's
    array : array, one-dimensional and contiguous
    index : int >= 0, not checked
    value : number
    stream : literal int < STREAMS; streams of other numbers do not overlap this one
    """
    number = stream.literal_value

    def _code(context, builder, signature, arguments):
        to = builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]))
        others = ["read", *(other for other in range(STREAMS) if other != number)]
        to.set_metadata("alias.scope", _scopes(builder.module, [number]))
        to.set_metadata("noalias", _scopes(builder.module, others))
        return context.get_dummy_value()

    return types.none(array, types.int64, array.dtype, stream), _code
