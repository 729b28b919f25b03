"""Flat files of named tensors, as published: safetensors, or PyTorch's. Nothing in such a file is ever run."""

import json
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file

SAFETENSORS = (".safetensors",)
PYTORCH = (".pt", ".pth", ".bin")
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
COMPILED = "_orig_mod."  # torch.compile's prefix of every name


def read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors as float32 by name, and the arguments beside them.

    Args:
      path: the file, or a folder with ``model.safetensors`` or ``pytorch_model.bin``.

    Returns:
      The tensors of the file or of its entry ``model``, and its other entries (PyTorch) or metadata (safetensors).

    Raises:
      UserError: no such file, damaged, of another format, or with anything in it that is not plain data.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        inside = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        if not inside:
            raise UserError(f"{path}: neither {' nor '.join(IN_FOLDERS)} in this folder")
        path = inside[0]
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    check_suffix(path)
    tensors, arguments = _read_safetensors(path) if path.suffix in SAFETENSORS else _read_pytorch(path)
    return {name.removeprefix(COMPILED): tensor for name, tensor in tensors.items()}, arguments


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray], arguments: Mapping[str, Any]) -> None:
    """The inverse of ``read``; a PyTorch file without arguments holds the bare tensors."""
    check_suffix(path)
    with appearing_file(path) as temporary:
        if path.suffix in SAFETENSORS:
            from safetensors.numpy import save_file

            save_file(dict(tensors), temporary, {key: json.dumps(value) for key, value in arguments.items()})
        else:
            torch = _torch(path)
            state = {name: torch.from_numpy(np.require(tensor, requirements="W")) for name, tensor in tensors.items()}
            torch.save({"model": state, **arguments} if arguments else state, temporary)


def check_suffix(path: pathlib.Path) -> None:
    """Refuse a file of no format that is read and written here.

    Raises:
      UserError: its name has another suffix.
    """
    if path.suffix not in SAFETENSORS + PYTORCH:
        raise UserError(f"{path}: weights are read and written as {', '.join(SAFETENSORS + PYTORCH)}")


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: np.float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no dict)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    return tensors, {key: _parsed(value) for key, value in metadata.items()}


def _parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_pytorch(path):
    torch = _torch(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors and plain values, which could run code: refused") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a PyTorch file, or damaged ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__} where named tensors are wanted")
    state = found.get("model", found)
    if not isinstance(state, dict):
        raise UserError(f"{path}: its entry 'model' is a {type(state).__name__} where named tensors are wanted")
    strange = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise UserError(f"{path}: not tensors: {', '.join(strange)}")
    tensors = {name: value.float().numpy() for name, value in state.items()}
    return tensors, {} if state is found else {key: value for key, value in found.items() if key != "model"}


def _torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path}: needs PyTorch: pip install torch (or use a .safetensors file)") from error
    return torch
