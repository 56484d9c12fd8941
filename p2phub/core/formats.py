"""What a file is by its name, as far as it matters for what it can do to whoever opens it (spec/rules.md §3).

Tools choose how to load a file by its name, so the name says what may happen. What the
content is shows only when it is here; `pickles.py` looks at that.
"""

from __future__ import annotations

import re
from typing import Literal

Format = Literal[
    "safetensors", "gguf", "onnx", "flax", "tflite", "numpy", "keras", "tensorflow", "torchscript", "pickle", "code",
    "text", "media", "table", "archive", "other",
]  # fmt: skip

FORMATS: tuple[Format, ...] = (
    "safetensors", "gguf", "onnx", "flax", "tflite", "numpy", "keras", "tensorflow", "torchscript", "pickle", "code",
    "text", "media", "table", "archive", "other",
)  # fmt: skip

# Of weights those that are numbers and nothing else, whatever they hold; of the rest what is read and not run.
HARMLESS: tuple[Format, ...] = (
    "safetensors", "gguf", "onnx", "flax", "tflite", "numpy", "text", "media", "table", "archive", "other",
)  # fmt: skip

_ENDINGS: dict[Format, str] = {
    "safetensors": "safetensors",
    "gguf": "gguf",
    "onnx": "onnx ort onnx_data",
    "flax": "msgpack",
    "tflite": "tflite",
    "numpy": "npy npz",
    "keras": "h5 hdf5 keras",
    "tensorflow": "pb pbtxt meta",
    "torchscript": "pt2",
    "pickle": (
        "pkl pickle pk p pt pth ckpt bin joblib dill cloudpickle sav distcp pdparams pdopt pdmodel nemo ptl"
        " t7 params cpkl pckl model_state optim"
    ),
    "code": (
        "py pyc pyo pyd pyx pyw so dll dylib exe com msi sh bash zsh fish csh ksh bat cmd ps1 psm1 vbs js mjs cjs"
        " ts jar class war rb pl php lua r jl ipynb whl egg mar appimage deb rpm apk scpt command desktop lnk"
    ),
    "text": (
        "md txt json yaml yml toml ini cfg conf jinja jinja2 jsonl ndjson csv tsv xml html htm rst tex bib license"
        " lock log tmpl template svg css vocab spm tiktoken bpe codes gitattributes gitignore"
    ),
    "media": "png jpg jpeg gif webp bmp tif tiff ico wav mp3 flac ogg opus m4a mp4 webm mkv avi mov pdf",
    "table": "parquet arrow feather orc avro db sqlite duckdb",
    "archive": "zip tar gz tgz bz2 xz zst 7z",
}
_FORMATS: dict[str, Format] = {ending: name for name, endings in _ENDINGS.items() for ending in endings.split()}

# Endings and names that pickles alone have. Other files may be anything, and are looked at when they are here.
_SURELY_PICKLED = re.compile(
    r".*\.(pkl|pickle|pt|pth|ckpt|joblib|dill|cloudpickle)"
    r"|(pytorch_model|adapter_model|diffusion_pytorch_model|training_args|optimizer|scheduler)[._0-9a-z-]*\.bin",
    re.ASCII,
)
_COMPRESSED = ("gz", "bz2", "xz", "zst", "lzma", "lz4", "z", "zip")


def format_of(path: str) -> Format:
    """Return what the file at `path` is for the tools that load it."""
    name = path.rsplit("/", 1)[-1].lower()
    *_, before, ending = ("", *name.split("."))
    if ending in _COMPRESSED and _FORMATS.get(before) == "pickle":
        return "pickle"  # pandas and joblib unpack by themselves
    if name in ("dockerfile", "makefile"):
        return "code"
    return _FORMATS.get(ending, "other") if "." in name else "other"


def is_surely_pickled(path: str) -> bool:
    """Say whether a file is a pickle by its name alone."""
    return _SURELY_PICKLED.fullmatch(path.rsplit("/", 1)[-1].lower()) is not None


def may_be_pickled(path: str) -> bool:
    """Say whether tools unpickle the file at `path` if it is a pickle: of others its first bytes tell enough."""
    return format_of(path) in ("pickle", "numpy", "other")
