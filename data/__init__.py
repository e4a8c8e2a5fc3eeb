"""Where rows come from and how they are split: `load` a labelled table, `split` it by protocol."""

from data.builtin import BUILTIN
from data.load import load
from data.protocols import ALL, PROTOCOLS, Split, check_protocol, split
from data.table import Table

__all__ = ["ALL", "BUILTIN", "PROTOCOLS", "Split", "Table", "check_protocol", "load", "split"]
