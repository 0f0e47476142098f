"""Search spaces as data: genes, the choices each one has, and the genomes that a space holds.

A gene is a decision. It is taken once for the whole network, a fixed number of times (once a stage) or as often as
another gene says (once a block, where `depth` says how many there are). A genome holds every decision; decisions for
blocks that it does not have are left out, so that two genomes are equal if their networks are.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..ir.errors import ModelError, UsageError

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["MOVES", "Choice", "Gene", "Genome", "Space", "key"]

Choice: TypeAlias = int | float | str
Genome: TypeAlias = Mapping[str, Choice | tuple[Choice, ...]]
"""What each gene decided: one choice, or a tuple of them for a gene that decides several times."""

MOVES = ("ram", "flash", "macs", "latency", "quality")
"""What a gene can change about a network."""

FOLDER = Path(__file__).parent / "spaces"


def key(genome: Genome) -> str:
    """Name `genome` for journals and caches: the same text for the same decisions, whatever their order."""
    return json.dumps(dict(genome), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Gene:
    """One decision of a search.

    Attributes:
        name: The name that families and reports know it by.
        choices: What it may decide, in an order in which neighbours are alike.
        count: How often it decides: a number, or the name of the gene that says so.
        moves: Which of `MOVES` it can change; a test holds every shipped gene to it.
        note: One line for people, with the source.
    """

    name: str
    choices: tuple[Choice, ...]
    count: int | str | None = None
    moves: tuple[str, ...] = MOVES
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a gene that decides nothing or moves what nobody knows."""
        wrong = "has no choices" if not self.choices else ""
        if len(set(self.choices)) < len(self.choices):
            wrong = "has a choice twice"
        elif isinstance(self.count, int) and self.count < 1:
            wrong = f"decides {self.count} times"
        elif unknown := sorted(set(self.moves) - set(MOVES)):
            wrong = f"moves {', '.join(unknown)}; known are {', '.join(MOVES)}"
        if wrong:
            raise ModelError(f"gene {self.name} {wrong}", do="correct the search space")


@dataclass(frozen=True)
class Space:
    """All networks that a search may choose from.

    Attributes:
        name: Its file's name, or that of the model it compresses.
        family: The file of `nas/families` that builds its networks; empty where a given model is compressed.
        genes: The decisions; one that says how often others decide stands before them.
        settings: What all its networks share (image size, channels, classes, ...).
        source: Paper and section.
    """

    name: str
    family: str
    genes: tuple[Gene, ...]
    settings: Mapping[str, Choice]
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse an empty space, a gene that stands twice, and a count that no earlier gene gives as whole numbers."""
        if not self.genes:
            raise ModelError(f"search space {self.name} has no genes", do="add a gene with at least one choice")
        earlier: dict[str, Gene] = {}
        for gene in self.genes:
            if gene.name in earlier:
                raise ModelError(f"gene {gene.name} stands twice in search space {self.name}", do="rename one of them")
            if isinstance(gene.count, str) and not _counts(earlier.get(gene.count)):
                why = f"{gene.count} is no earlier gene of its own with whole numbers above 0"
                raise ModelError(f"gene {gene.name} decides as often as {gene.count} says", why=why, do="correct it")
            earlier[gene.name] = gene

    @classmethod
    def shipped(cls) -> list[str]:
        """Names of the spaces that come with the project."""
        return sorted(path.stem for path in FOLDER.glob("*.toml"))

    @classmethod
    def load(cls, name: str | Path) -> Space:
        """Read a shipped space by its name, or any by its path.

        Raises:
            UsageError: There is no such space.
            ModelError: The file is no TOML, or not of this form.
        """
        path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            do = f"give the path of a .toml file or one of {', '.join(cls.shipped())}"
            raise UsageError(f"there is no search space {name}", do=do) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} is no TOML", why=str(error), do="correct the search space") from error
        try:
            return cls.of(path.stem, table)
        except (KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"{path} describes no search space", why=why, do="compare it with a shipped one"
            ) from error

    @classmethod
    def of(cls, name: str, table: Mapping[str, Any]) -> Space:
        """Make a space from what its file says."""
        genes = tuple(
            Gene(
                gene,
                tuple(each["choices"]),
                each.get("count"),
                tuple(each.get("moves", MOVES)),
                each.get("note", ""),
            )
            for gene, each in table.get("genes", {}).items()
        )
        return cls(name, table["family"], genes, dict(table.get("settings", {})), table.get("source", ""))

    @cached_property
    def variables(self) -> tuple[tuple[str, int, tuple[Choice, ...]], ...]:
        """Every single decision that any network of the space takes: its gene, its place in it, its choices."""
        return tuple((gene.name, place, gene.choices) for gene in self.genes for place in range(self._most(gene)))

    def gene(self, name: str) -> Gene:
        """The gene called `name`."""
        return next(gene for gene in self.genes if gene.name == name)

    def genome(self, vector: Sequence[int]) -> Genome:
        """Decode the index of each variable's choice into a genome; what it has no block for is left out."""
        chosen: dict[str, Choice | tuple[Choice, ...]] = {}
        start = 0
        for gene in self.genes:
            span = self._most(gene)
            picks = tuple(gene.choices[index] for index in vector[start : start + span])
            start += span
            chosen[gene.name] = picks[0] if gene.count is None else picks[: self._times(gene, chosen)]
        return chosen

    def vector(self, genome: Genome) -> tuple[int, ...]:
        """Encode `genome` as the index of each variable's choice; variables it has no use for are 0.

        Raises:
            UsageError: It is no genome of this space.
        """
        self.check(genome)
        indices: list[int] = []
        for gene in self.genes:
            value = genome[gene.name]
            picks = value if isinstance(value, tuple) else (value,)
            found = [gene.choices.index(pick) for pick in picks]
            indices += found + [0] * (self._most(gene) - len(found))
        return tuple(indices)

    def check(self, genome: Genome) -> None:
        """Hold `genome` against the space.

        Raises:
            UsageError: A gene is missing or unknown, decides something else than its choices, or too often.
        """
        names = [gene.name for gene in self.genes]
        if odd := set(names) ^ set(genome):
            raise UsageError(f"no genome of {self.name}: {', '.join(sorted(odd))} missing or unknown")
        for gene in self.genes:
            value = genome[gene.name]
            picks = value if isinstance(value, tuple) else (value,)
            if isinstance(value, tuple) != (gene.count is not None) or len(picks) != self._times(gene, genome):
                raise UsageError(f"no genome of {self.name}: {gene.name} decides {len(picks)} times")
            if wrong := [pick for pick in picks if pick not in gene.choices]:
                raise UsageError(f"no genome of {self.name}: {gene.name} cannot be {wrong[0]}")

    def read(self, text: str) -> Genome:
        """Read what `key` wrote."""
        raw = json.loads(text)
        genome = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
        self.check(genome)
        return genome

    def draw(self, generator: Generator) -> Genome:
        """Draw a genome, each decision uniformly."""
        return self.genome([int(generator.integers(len(choices))) for _, _, choices in self.variables])

    def every(self) -> Iterator[Genome]:
        """All genomes, each once; only for spaces that are small enough."""
        seen = set()
        for vector in product(*(range(len(choices)) for _, _, choices in self.variables)):
            genome = self.genome(vector)
            if key(genome) not in seen:
                seen.add(key(genome))
                yield genome

    def _most(self, gene: Gene) -> int:
        if gene.count is None:
            return 1
        return gene.count if isinstance(gene.count, int) else max(int(each) for each in self.gene(gene.count).choices)

    def _times(self, gene: Gene, genome: Genome) -> int:
        if gene.count is None:
            return 1
        if isinstance(gene.count, int):
            return gene.count
        times = genome[gene.count]
        assert isinstance(times, int)
        return times


def _counts(gene: Gene | None) -> bool:
    return gene is not None and gene.count is None and all(type(each) is int and each > 0 for each in gene.choices)
