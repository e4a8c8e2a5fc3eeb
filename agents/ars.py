"""Augmented random search that counts its steps."""

from typing import Any

import sb3_contrib


class ARS(sb3_contrib.ARS):
    """`sb3_contrib.ARS`, which counts a step of n lanes n times for each of the lanes."""

    def _trigger_callback(
        self, _locals: dict[str, Any], _globals: dict[str, Any], callback: Any, n_envs: int
    ) -> None:
        super()._trigger_callback(_locals, _globals, callback, 1)
