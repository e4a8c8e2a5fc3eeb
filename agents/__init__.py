"""Policies that act in the env, and the hardening loop that lets them."""

from agents.algorithms import ALGORITHMS, make_agent
from agents.hardening import HardeningSettings, harden

__all__ = ["ALGORITHMS", "HardeningSettings", "harden", "make_agent"]
