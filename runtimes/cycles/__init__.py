"""Cycles as a band: what stated rules make of exactly counted blocks, core and memory apart, narrowed by a board's run.

An estimate is a sum of terms. Each is a count, exact or bounded, times cycles that a rule bounds; nothing in it was
measured unless a calibration says so.
"""

from .estimate import Estimate, Term, estimate, estimate_code, has_rules, latency
from .reads import by_region

__all__ = ["Estimate", "Term", "by_region", "estimate", "estimate_code", "has_rules", "latency"]
