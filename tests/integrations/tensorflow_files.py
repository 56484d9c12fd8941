"""tensorflow_hub's resolvers without TensorFlow, a package of a gigabyte of which they use the files only.

Run with the folder of this module on the path: the resolvers are the real ones, what they
find as `tensorflow` does to files what Python does.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from types import ModuleType, SimpleNamespace


def set_up() -> None:
    """Let `tensorflow_hub.*` be imported, without the parts of that package that calculate."""
    gfile = SimpleNamespace(
        GFile=open,
        MakeDirs=lambda path: os.makedirs(path, exist_ok=True),
        Exists=os.path.exists,
        ListDirectory=os.listdir,
        Stat=lambda path: SimpleNamespace(length=os.stat(path).st_size, mtime_nsec=os.stat(path).st_mtime_ns),
        Remove=os.remove,
        Rename=lambda old, new, overwrite=False: (os.replace if overwrite else os.rename)(old, new),
        DeleteRecursively=shutil.rmtree,
    )
    tensorflow = ModuleType("tensorflow")
    vars(tensorflow).update(
        Tensor=object,
        SparseTensor=object,
        RaggedTensor=object,
        compat=SimpleNamespace(v1=SimpleNamespace(gfile=gfile), as_bytes=os.fsencode),
        errors=SimpleNamespace(
            OpError=OSError,
            NotFoundError=FileNotFoundError,
            AlreadyExistsError=FileExistsError,
            PermissionDeniedError=PermissionError,
            UnauthenticatedError=PermissionError,
            ResourceExhaustedError=OSError,
            InternalError=OSError,
            InvalidArgumentError=OSError,
            UnimplementedError=OSError,
        ),
    )
    sys.modules["tensorflow"] = tensorflow
    found = importlib.util.find_spec("tensorflow_hub")
    assert found is not None
    assert found.submodule_search_locations
    package = ModuleType("tensorflow_hub")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow_hub"] = package
