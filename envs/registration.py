"""Registers the env ids with Gymnasium: the flagship's, and one for every detector backend."""

import re
import warnings

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

import detectors
from common.errors import InputError
from common.imports import load_module
from common.names import unknown

MAX_EPISODE_STEPS = 8
FLAGSHIP = "LatentAnomaly-v0"
FLAGSHIP_BACKEND = "mamba-moe"
NAMESPACE = "LatentAnomaly"
ENTRY_POINT = "envs.latent_anomaly:LatentAnomalyEnv"
VECTOR_ENTRY_POINT = "envs.vector:LatentAnomalyVectorEnv"
FORM = re.compile(rf"(?:(?P<module>[\w.]+):)?(?P<name>{NAMESPACE}(?:/(?P<backend>.+))?-v\d+)")


def env_id(detector: str) -> str:
    """Return the id of the env that attacks the backend `detector`, and register it.

    Raises:
        InputError: another backend has that id, as `onnx:a/b` and `onnx:a-b` would.
    """
    name = env_name(detector)
    register(name, detector)
    return name


def env_name(detector: str) -> str:
    """Return the id that the env of the backend `detector` has or would have.

    Gymnasium takes a colon for the end of a module's name and allows no slash in an env's, so `:`
    becomes `.` and anything else but letters, digits, `_`, `.` and `-` becomes `-`:
    `pyod:LOF` is attacked in `LatentAnomaly/pyod.LOF-v0`.
    """
    allowed = re.sub(r"[^\w.-]", "-", detector.replace(":", "."))
    return f"{NAMESPACE}/{allowed}-v0"


def register_envs() -> None:
    """Register every id that is not registered yet; calling it again is harmless.

    Members of a family have an id at once where they can be told without importing them (`pyod:`),
    the others (`sklearn:`, `onnx:`) from the first call of `env_id` on.
    """
    register(FLAGSHIP, FLAGSHIP_BACKEND)
    members = [name for family in detectors.registry.families.values() for name in family.members()]
    for backend in [*members, *detectors.ids()]:
        try:
            env_id(backend)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)


def register(name: str, backend: str) -> None:
    """Register the env `name` with Gymnasium, unless it is; see `env_id`."""
    if name in gym.registry:
        taken = attacked_backend(gym.registry[name])
        if taken != backend:
            raise InputError(
                f"{name} attacks {taken}; rename {backend}, or make {FLAGSHIP} with"
                f" detector={backend!r}."
            )
    else:
        gym.register(
            name,
            entry_point=ENTRY_POINT,
            vector_entry_point=VECTOR_ENTRY_POINT,
            max_episode_steps=MAX_EPISODE_STEPS,
            kwargs={"detector": backend},
        )


def attacked_backend(spec: EnvSpec) -> str:
    """Return the id of the backend that an env attacks by default."""
    return spec.kwargs.get("detector", FLAGSHIP_BACKEND)


def find_env(id: str) -> tuple[str, str]:
    """Find the env that a user named, by a registered id, as `module:id` or by its backend's id.

    `LatentAnomaly/pyod:LOF-v0` is thus taken for `LatentAnomaly/pyod.LOF-v0`.

    Returns:
        the id that Gymnasium knows, and the id of the backend that the env attacks by default.

    Raises:
        InputError: the id is not registered, its module does not import, or it is another kind of
            env.
    """
    module, name, backend = parse(id)
    if module:
        load_module(module)
    register_envs()
    ours = {
        key: spec
        for key, spec in gym.registry.items()
        if (spec.entry_point, spec.vector_entry_point) == (ENTRY_POINT, VECTOR_ENTRY_POINT)
    }
    if name in ours:
        return name, attacked_backend(ours[name])
    if name in gym.registry:
        raise InputError(
            f"{name} is not registered with the entry points {ENTRY_POINT!r} and"
            f" {VECTOR_ENTRY_POINT!r}; choose an id that is, such as {FLAGSHIP}."
        )
    if not name.endswith("-v0"):
        raise unknown("env id", name, ours)
    if backend in detectors.ids():
        return env_id(backend), backend
    family = re.fullmatch(r"(\w+)[:.](.+)", backend)
    if not family or family[1] not in detectors.registry.families:
        raise unknown("env id", name, ours)
    member = f"{family[1]}:{family[2]}"
    detectors.registry.load(member)
    return env_id(member), member


def parse(id: str) -> tuple[str, str, str]:
    """Split `module:id` into module, id and backend, each empty where it is not there."""
    match = FORM.fullmatch(id)
    if match is None:
        module, _, name = id.rpartition(":")
        return module, name, ""
    return match["module"] or "", match["name"], match["backend"] or ""
