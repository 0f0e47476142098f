"""A compressed network in the making: what a genome takes out of a graph, and what layers are to be stored as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...ir.errors import UsageError
from ...ir.graph import Array, Graph, Node
from ...ir.passes.quantise.codes import note_codes
from ...ir.passes.quantise.fit_codes import CODES
from ..space import Choice, Gene, Genome, Space
from . import drop, heads, width
from .correct import Fit, applied, corrected
from .low_rank import break_even, factors
from .observe import Observed, matrix
from .sites import Heads, branches, channels, layers
from .sites import heads as attentions

__all__ = ["Compressor", "Draft"]

STORED = ("ram", "flash", "latency", "quality")
"""What the code of a layer moves; decoded rows lie on the stack."""

STEPS = 16
"""Into how many equal parts a width or a rank is divided; a quarter of a width is the least that is kept."""


@dataclass(frozen=True)
class Draft:
    """A graph with something taken out, its weights as they were: `kept` and `codes` as in `correct.corrected`."""

    graph: Graph
    kept: Mapping[str, Array]
    codes: Mapping[str, str]
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Compressor:
    """A float graph after its exact passes, what it computes on calibration data, and what can be done to it.

    Genes are called after what they change: "drop NAME" of a branch, "width NAME" of a group of channels, "heads NAME",
    "keys NAME" and "values NAME" of an attention, "rank NAME" and "code NAME" of a layer; each decides once, and its
    first choice changes nothing.
    """

    graph: Graph
    seen: Observed

    @cached_property
    def space(self) -> Space:
        """All that can be done, gene by gene; the first choices together are the network as it is."""
        genes = [Gene(f"drop {each.name}", (0, 1), note="1 leaves the branch out") for each in branches(self.graph)]
        for group in channels(self.graph):
            genes.append(Gene(f"width {group.name}", _widths(group.size), note="channels that are kept"))
        for site in attentions(self.graph):
            genes.append(Gene(f"heads {site.name}", tuple(range(site.count, 0, -1)), note="heads that are kept"))
            for word, name in (("keys", site.k), ("values", site.v)):
                width_of_one = self.graph.value(name).shape[-1] // site.count
                genes.append(Gene(f"{word} {site.name}", _widths(width_of_one), note="channels of each head"))
        for node in layers(self.graph):
            if ranks := _ranks(*matrix(node).shape):
                choices = (min(matrix(node).shape), *ranks)
                genes.append(Gene(f"rank {node.output.name}", choices, note="of two factors; the full one: none"))
        genes += [Gene(f"code {node.output.name}", CODES, moves=STORED) for node in layers(self.graph)]
        return Space(self.graph.name, "", tuple(genes), {})

    def genome(self, **chosen: Sequence[Choice]) -> Genome:
        """The network as it is, but for genes whose names begin with a given word: the first of these it can be."""
        found: dict[str, Choice] = {}
        for gene in self.space.genes:
            wishes = chosen.get(gene.name.partition(" ")[0], ())
            found[gene.name] = next((wish for wish in wishes if wish in gene.choices), gene.choices[0])
        return found

    @cached_property
    def orders(self) -> dict[str, tuple[int, ...]]:
        """Channels and heads by the name of the gene that keeps some, the one that is worth most first."""
        found = {f"width {each.name}": width.importance(self.graph, each, self.seen) for each in channels(self.graph)}
        for site in attentions(self.graph):
            found[f"heads {site.name}"] = heads.importance(self.graph, site, self.seen)
            found[f"keys {site.name}"] = heads.keys(site, self.seen)
            found[f"values {site.name}"] = heads.values(self.graph, site, self.seen)
        return found

    def draft(self, genome: Genome) -> Draft:
        """Take out what a genome says.

        Raises:
            UsageError: It is no genome of this space.
            ModelError: What is left is no network.
        """
        self.space.check(genome)
        made, kept = self.graph, dict[str, Array]()
        for group in channels(self.graph):
            count = _number(genome[f"width {group.name}"])
            if count < group.size:
                left = sorted(self.orders[f"width {group.name}"][:count])
                made = width.keep(made, group, left)
                kept |= width.kept_outputs(group, left)
        for site in attentions(self.graph):
            left_of = self._channels(site, genome)
            if [len(each) for each in left_of] != [self.graph.value(name).shape[-1] for name in (site.k, site.v)]:
                made = heads.keep(made, site, _number(genome[f"heads {site.name}"]), left_of)
                kept |= heads.outputs_kept(site, left_of)
        made = drop.drop(made, [each.name for each in branches(self.graph) if genome[f"drop {each.name}"]])
        names = [node.output.name for node in layers(made)]
        codes = {name: str(genome[f"code {name}"]) for name in names if genome[f"code {name}"] != "int8"}
        ranks = {name: _number(genome[f"rank {name}"]) for name in names if f"rank {name}" in genome}
        return Draft(made, kept, codes, ranks)

    def _channels(self, site: Heads, genome: Genome) -> heads.Kept:
        """Which channels of keys and of values an attention is left with."""
        stay = sorted(self.orders[f"heads {site.name}"][: _number(genome[f"heads {site.name}"])])
        keys, values = (
            heads.by_head(self.orders[gene], stay, site.count, self.graph.value(name).shape[-1], _number(genome[gene]))
            for gene, name in ((f"keys {site.name}", site.k), (f"values {site.name}", site.v))
        )
        return keys, values

    @property
    def hidden_layers(self) -> list[str]:
        """The layers on both sides of channels that a single layer reads, as those of an MLP."""
        groups = [each for each in channels(self.graph) if len(each.readers) == 1]
        return [name for each in groups for name in (*each.writers, *each.readers)]

    def cut(self, shares: Mapping[str, float], codes: Sequence[str] = (), dropped: Sequence[str] = ()) -> Genome:
        """The network with the same done to all that is alike.

        Args:
            shares: Which share of the steps down to the least a gene goes, by the word that its name begins with, or
                by "stream" for channels that several layers read.
            codes: As for `genome`.
            dropped: Branches to leave out, by their sums.
        """
        found = {**self.genome(code=codes), **{f"drop {name}": 1 for name in dropped}}
        streams = {f"width {each.name}" for each in channels(self.graph) if len(each.readers) > 1}
        for gene in self.space.genes:
            share = shares.get("stream" if gene.name in streams else gene.name.partition(" ")[0])
            if share is not None:
                found[gene.name] = gene.choices[round(share * (len(gene.choices) - 1))]
        return found

    def sketch(self, genome: Genome) -> Graph:
        """The network of a genome with weights of the right sizes, for its costs: nothing is put right."""
        draft = self.draft(genome)
        return _finished(draft, {node.output.name: self._plain(node, draft) for node in layers(draft.graph)})

    def _plain(self, node: Node, draft: Draft) -> Fit:
        w, bias = matrix(node), node.optional(2)
        rank = draft.ranks.get(node.output.name, min(w.shape))
        found = (w,) if rank > break_even(*w.shape) else factors(w, np.eye(w.shape[1]), rank)[::-1]
        return Fit(tuple(each.astype(np.float32) for each in found), None if bias is None else bias.array)

    def network(self, genome: Genome) -> Graph:
        """The network of a genome, put right."""
        draft = self.draft(genome)
        return _finished(draft, corrected(draft.graph, self.seen, draft.kept, draft.codes, draft.ranks))


def _finished(draft: Draft, fits: Mapping[str, Fit]) -> Graph:
    """The graph with its weights and codes; a layer stands for the ONNX node that a file will have for it."""
    made = applied(draft.graph, fits)
    for node in layers(made):
        node.sources = tuple(dict.fromkeys((node.output.name, *node.sources)))
    halves = {f"{name}.first": code for name, code in draft.codes.items() if len(fits[name].matrices) == 2}
    note_codes(made, {**draft.codes, **halves})
    return made


def _widths(size: int) -> tuple[int, ...]:
    """`size` down to a quarter of it, in even steps, as two channels are packed together."""
    parts = (round(size * part / STEPS / 2) * 2 for part in range(STEPS - 1, STEPS // 4 - 1, -1))
    return tuple(dict.fromkeys((size, *(each for each in parts if 0 < each < size))))


def _ranks(outputs: int, inputs: int) -> tuple[int, ...]:
    """Ranks that pay off, the largest first, in steps of four, as four columns are packed together."""
    most = break_even(outputs, inputs)
    parts = (most * part // STEPS // 4 * 4 for part in range(STEPS, STEPS // 4 - 1, -2))
    return tuple(dict.fromkeys(each for each in parts if each > 0))


def _number(choice: object) -> int:
    if not isinstance(choice, int):
        raise UsageError(f"a gene that counts something cannot be {choice}")
    return choice
