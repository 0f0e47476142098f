"""The least sum of costs over pairs of variables, by eliminating one variable after the other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array

__all__ = ["Problem"]

MOST_ENTRIES = 2**21
"""Of one table; where more would be needed a variable is fixed instead, and the result may not be the least."""

Scope = tuple[int, ...]


@dataclass
class Problem:
    """Variables with a cost for each of their choices, and tables of costs for pairs of them."""

    names: dict[Hashable, int] = field(default_factory=dict)
    costs: list[Array] = field(default_factory=list)
    tables: dict[Scope, Array] = field(default_factory=dict)

    def variable(self, name: Hashable, costs: Array) -> None:
        """Add a variable with as many choices as there are costs."""
        self.names[name] = len(self.costs)
        self.costs.append(costs.astype(np.float64))

    def pair(self, first: Hashable, second: Hashable, table: Array) -> None:
        """Add costs of the choices of two variables together; costs of the same pair add up."""
        a, b = self.names[first], self.names[second]
        scope, table = ((a, b), table) if a < b else ((b, a), table.T)
        self.tables[scope] = self.tables.get(scope, 0.0) + table

    def solve(self) -> tuple[dict[Hashable, int], float, bool]:
        """The choice of every variable, their cost, and whether it is the least there is.

        Raises:
            ValueError: No choice is possible.
        """
        elimination = _Elimination([costs.copy() for costs in self.costs])
        for scope, table in self.tables.items():
            elimination.put(scope, table)
        chosen, cost = elimination.run()
        if not np.isfinite(cost):
            raise ValueError("the costs allow no choice")
        return {name: chosen[index] for name, index in self.names.items()}, cost, elimination.exact


@dataclass
class _Elimination:
    costs: list[Array]
    tables: dict[Scope, Array] = field(default_factory=dict)
    near: dict[int, set[Scope]] = field(default_factory=dict)
    exact: bool = True
    constant: float = 0.0
    steps: list[tuple[int, Scope, Array]] = field(default_factory=list)

    def put(self, scope: Scope, table: Array) -> None:
        """Add a table over variables in rising order; those of one choice fall out of it."""
        real = tuple(v for v in scope if self.costs[v].size > 1)
        table = table.reshape([self.costs[v].size for v in real])
        if len(real) == 0:
            self.constant += float(table)
        elif len(real) == 1:
            self.costs[real[0]] = self.costs[real[0]] + table
        else:
            self.tables[real] = self.tables[real] + table if real in self.tables else table
            for v in real:
                self.near.setdefault(v, set()).add(real)

    def run(self) -> tuple[dict[int, int], float]:
        """Eliminate all, then choose in the opposite order."""
        left = {v for v, costs in enumerate(self.costs) if costs.size > 1}
        sizes = {v: self._entries(v) for v in left}
        while left:
            v = min(left, key=lambda each: (sizes[each], each))
            if sizes[v] > MOST_ENTRIES:
                v = max(left, key=lambda each: (len(self._around(each)), -each))
                touched = self._fix(v)
            else:
                touched = self._eliminate(v)
            left.discard(v)
            for each in touched & left:
                sizes[each] = self._entries(each)
        chosen = {v: 0 for v in range(len(self.costs))}
        for v, scope, best in reversed(self.steps):
            chosen[v] = int(best[tuple(chosen[u] for u in scope)])
        alone = sum(float(costs[0]) for costs in self.costs if costs.size == 1)
        return chosen, self.constant + alone

    def _around(self, v: int) -> set[int]:
        return {u for scope in self.near.get(v, ()) for u in scope} - {v}

    def _entries(self, v: int) -> int:
        return int(np.prod([self.costs[u].size for u in (v, *self._around(v))], dtype=np.int64))

    def _taken(self, v: int) -> list[tuple[Scope, Array]]:
        """The tables that name a variable, removed."""
        found = [(scope, self.tables.pop(scope)) for scope in sorted(self.near.pop(v, ()))]
        for scope, _ in found:
            for u in scope:
                if u != v:
                    self.near[u].discard(scope)
        return found

    def _eliminate(self, v: int) -> set[int]:
        """Replace a variable by what its best choice costs, over the choices of those around it."""
        around = tuple(sorted(self._around(v)))
        axes = (*around, v)
        total = self.costs[v].reshape((1,) * len(around) + (-1,))
        for scope, table in self._taken(v):
            order = sorted(range(len(scope)), key=lambda i: axes.index(scope[i]))
            shape = [self.costs[u].size if u in scope else 1 for u in axes]
            total = total + table.transpose(order).reshape(shape)
        total = np.broadcast_to(total, [self.costs[u].size for u in axes])
        self.steps.append((v, around, total.argmin(axis=-1)))
        self.put(around, total.min(axis=-1))
        return set(around)

    def _fix(self, v: int) -> set[int]:
        """Settle a variable by its own costs and the least that each table adds."""
        self.exact = False
        touched = self._around(v)
        taken = self._taken(v)
        total = self.costs[v].copy()
        for scope, table in taken:
            total += np.moveaxis(table, scope.index(v), 0).reshape(total.size, -1).min(axis=1)
        best = int(total.argmin())
        self.steps.append((v, (), np.array(best)))
        self.constant += float(self.costs[v][best])
        for scope, table in taken:
            self.put(tuple(u for u in scope if u != v), np.take(table, best, scope.index(v)))
        return touched
