"""The 47 classical sets of ADBench (Han et al. 2022), downloaded once and kept in a cache.

The cache is pooch's folder for `swift-hydra`, or the folder that the environment variable
SWIFT_HYDRA_CACHE names.
"""

import warnings

import pooch

from common.errors import InputError
from common.names import unknown
from data.adbench_sums import SHA256
from data.files import read
from data.table import Table

PREFIX = "adbench:"
BASE_URL = "https://raw.githubusercontent.com/Minqi824/ADBench/main/adbench/datasets/Classical"
CACHE_VARIABLE = "SWIFT_HYDRA_CACHE"
FILES = {file.removesuffix(".npz").partition("_")[2]: file for file in SHA256}


def load_adbench(name: str) -> Table:
    """Read the set `name`, with or without its number: `12_fault` or `fault`.

    Raises:
        InputError: there is no such set, or it cannot be downloaded, or is not what was published.
    """
    file = f"{name}.npz" if f"{name}.npz" in SHA256 else FILES.get(name)
    if file is None:
        raise unknown("ADBench set", name, FILES)
    path = fetch(file)
    try:
        return read(path, name=PREFIX + file.removesuffix(".npz"))
    except InputError as error:
        raise InputError(f"{path} is broken; delete it, so that it is downloaded again.") from error


def fetch(file: str) -> str:
    """Return the path of an ADBench file, from the cache or else downloaded and checked.

    Raises:
        InputError: the download fails, or its checksum differs from the known one.
    """
    cache = pooch.create(
        path=pooch.os_cache("swift-hydra"),
        base_url=BASE_URL,
        registry=SHA256,
        env=CACHE_VARIABLE,
    )
    if cache.abspath.is_file():
        raise InputError(f"{cache.abspath} is a file; name a folder in {CACHE_VARIABLE}.")
    if SHA256[file] is None:
        warnings.warn(f"The checksum of {file} is unknown; it is used unchecked.", stacklevel=2)
    try:
        return cache.fetch(file)
    except OSError as error:
        raise InputError(
            f"Cannot fetch {cache.get_url(file)} ({error});"
            f" go online, or put the file into {cache.abspath}."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{cache.get_url(file)} differs from its known checksum;"
            f" put a copy with SHA-256 {SHA256[file]} into {cache.abspath}."
        ) from error
