"""Augmented random search that counts its steps."""

from typing import Any

import sb3_contrib


class ARS(sb3_contrib.ARS):
    """`sb3_contrib.ARS`, but a step of n lanes counts n times; there, n times for each lane."""

    def _trigger_callback(
        self, _locals: dict[str, Any], _globals: dict[str, Any], callback: Any, n_envs: int
    ) -> None:
        super()._trigger_callback(_locals, _globals, callback, 1)
