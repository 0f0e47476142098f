"""What to tell a user whose model does not fit: how far off it is, who is to blame, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BudgetError

if TYPE_CHECKING:
    from .plan import Buffer, Plan


def too_large(plan: Plan, budget: int) -> BudgetError:
    """The error for a graph whose smallest plan exceeds its budget."""
    step = plan.peak_step
    group, alive = plan.steps[step].group, plan.alive(step)
    shown = ", ".join(_shown(plan, buffer) for buffer in sorted(alive, key=lambda b: (-b.bytes, b.name)))
    over = plan.arena_bytes - budget
    least = f"no plan can go below {plan.lower_bound:,}"
    return BudgetError(
        f"the smallest plan needs {plan.arena_bytes:,} bytes of RAM, {over:,} more than the budget of {budget:,}",
        where=group.sources or (group.name,),
        why=f"step {step + 1} of {len(plan.steps)} ({group.kind}) is the peak: {shown}; {least}",
        do="; or ".join(_helps(plan, step)),
    )


def _shown(plan: Plan, buffer: Buffer) -> str:
    if buffer.kind == "scratch":
        return f"scratch {buffer.bytes:,}"
    kind = _type(plan, buffer)
    return f"{buffer.name} {buffer.bytes:,}{kind}"


def _type(plan: Plan, buffer: Buffer) -> str:
    for step in plan.steps:
        for value in (*step.group.inputs, *step.group.outputs):
            if value.name == buffer.name:
                return f" ({value.dtype} {'x'.join(map(str, value.shape[1:] or value.shape))})"
    return ""


def _helps(plan: Plan, step: int) -> list[str]:
    """Remedies, those that change the model least first."""
    group, alive = plan.steps[step].group, plan.alive(step)
    helps = []
    if any(buffer.kind == "input" for buffer in alive):
        helps.append("feed the image through the pixel callback instead of holding it in RAM")
    wide = sum(b.bytes for b in alive if b.kind != "scratch" and "(int16 " in _type(plan, b))
    if wide:
        helps.append(f"quantise the residual stream to int8, which halves {wide:,} bytes at the peak")
    if group.kind == "attention":
        helps.append("use a smaller image or larger patches: keys and values grow with the number of tokens")
    else:
        helps.append("use a smaller image or fewer channels in this layer")
    helps.append("choose a target with more RAM")
    return helps
