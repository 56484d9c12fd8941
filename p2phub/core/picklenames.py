"""What was found in a pickle, and what one may import (spec/rules.md §4).

Allowed are functions and classes that hold data, and do nothing else: with whatever
arguments one is called, it makes a value and returns it. What reads another pickle
(`torch.storage._load_from_bytes`), looks up an attribute or calls what it is given is not.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

SCAN_VERSION = 2  # of what `pickles.scan` finds: what another one found does not count

# Names of today and those that Python 2 gave the same things.
_BUILTIN = (
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set",
    "slice", "str", "tuple", "unicode", "long",
)  # fmt: skip
_TORCH_TYPES = (
    "bfloat16", "bool", "cdouble", "cfloat", "chalf", "complex128", "complex32", "complex64", "double", "float",
    "float16", "float32", "float64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu", "float4_e2m1fn_x2", "half", "int", "int16", "int32", "int64", "int8", "long", "qint32", "qint8",
    "quint2x4", "quint4x2", "quint8", "short", "uint16", "uint32", "uint64", "uint8",
)  # fmt: skip
_TORCH_STORAGES = (
    "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long",
    "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8", "Short", "Untyped",
)  # fmt: skip
_TORCH_REBUILD = (
    "_rebuild_device_tensor_from_numpy", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor",
    "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_csr_tensor",
    "_rebuild_sparse_tensor", "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3",
)  # fmt: skip
_NUMPY_TYPES = (
    "bool_", "bool", "complex128", "complex64", "float16", "float32", "float64", "int16", "int32", "int64", "int8",
    "str_", "bytes_", "uint16", "uint32", "uint64", "uint8",
)  # fmt: skip

ALLOWED = frozenset(
    {
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTIN),
        *(f"collections.{name}" for name in ("Counter", "OrderedDict", "deque")),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(f"torch.{name}" for name in (*_TORCH_TYPES, "Size", "Tensor", "device", "per_channel_affine",
                                       "per_tensor_affine")),
        *(f"torch.{name}Storage" for name in _TORCH_STORAGES),
        *(f"torch.storage.{name}" for name in ("TypedStorage", "UntypedStorage")),
        *(f"torch._utils.{name}" for name in _TORCH_REBUILD),
        *(f"numpy.{module}.multiarray.{name}" for module in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.{name}" for name in (*_NUMPY_TYPES, "dtype", "ndarray")),
        "_codecs.encode",
        "argparse.Namespace",
        "copy_reg._reconstructor",
        "copyreg._reconstructor",
        "decimal.Decimal",
        "numpy._core.numeric._frombuffer",
        "numpy.core.numeric._frombuffer",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "uuid.UUID",
    }
)  # fmt: skip


class Scan(Struct, frozen=True):
    """What was found in a file."""

    is_pickle: bool  # it holds at least one pickle that names something, or that reaches its end
    names: tuple[str, ...] = ()  # `module.name` of all that it would import, sorted
    problem: str | None = None  # why it cannot be known what else it does


NO_PICKLE = Scan(False)


def forbidden(names: Collection[str], allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Return those of the `names` that a pickle may not import, sorted.

    allowed: what the owner of this machine allows besides.
    """
    return tuple(sorted(set(names) - ALLOWED - set(allowed)))


def looks_pickled(head: bytes) -> bool:
    """Say whether a file that begins with `head` (16 bytes or more) is a pickle by its first bytes.

    For files whose name says that they are something else: no tool takes them for a pickle by their name.
    """
    # PROTO with a version that exists, or the beginning of a checkpoint of PyTorch.
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5
