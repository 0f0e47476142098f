"""The memory planner: fused groups, the schedules they can run by, and one arena in which everything has its place."""

from .front import front, thinned
from .group import Group, form_groups
from .picture import svg
from .plan import Buffer, Plan, Step, plan
from .schedule import Schedule, schedules
from .scratch import Piece

__all__ = ["Buffer", "Group", "Piece", "Plan", "Schedule", "Step", "form_groups", "front", "plan", "schedules", "svg",
           "thinned"]  # fmt: skip
