"""Tensors to and from safetensors files, which hold no code."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from common.errors import InputError
from common.files import replacing


def save_tensors(path: Path | str, tensors: dict[str, Tensor]) -> None:
    """Write named tensors, atomically; those that share memory each in full."""
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(copies))


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read named tensors; raise `InputError` where the file is missing or broken."""
    try:
        return load(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; the folder is no complete run or model, or another backend's."
        ) from None
    except SafetensorError as error:
        raise InputError(f"{path} holds no readable tensors ({error}); train it again.") from error
