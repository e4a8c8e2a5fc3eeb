"""Policies that act in the env, and the hardening loop that lets them hunt."""
