"""The memory planner: fused groups, the schedules they can run by, and one arena in which everything has its place."""

from .front import front, thinned
from .group import Group, form_groups
from .picture import svg
from .plan import Buffer, Plan, Step, plan
from .rates import Rates
from .schedule import Schedule, schedules
from .scratch import Piece
from .traffic import streams

__all__ = ["Buffer", "Group", "Piece", "Plan", "Rates", "Schedule", "Step", "form_groups", "front", "plan", "schedules",
           "streams", "svg", "thinned"]  # fmt: skip
