"""From a MIL program to a `.mlpackage` whose bytes depend on nothing but the program; and back to what stands in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...ir.errors import InternalError, Unsupported
from .vendor import coremltools, quiet

__all__ = ["PASSES", "Extras", "convert", "operations", "operators", "save", "specification"]

PASSES = (
    "common::dead_code_elimination",
    "common::noop_elimination",
    "common::merge_consecutive_reshapes",
    "common::merge_consecutive_transposes",
    "common::merge_consecutive_paddings",
    "common::fuse_pad_conv",
    "common::fuse_transpose_matmul",
    "common::expand_high_rank_reshape_and_transpose",
    "common::reduce_transposes",
    "common::remove_redundant_ops",
    "common::const_elimination",
    "common::cast_optimization",
    "common::merge_consecutive_reshapes",
    "common::dead_code_elimination",
    "common::const_deduplication",
    "common::dead_code_elimination",
)
"""What coremltools does to the program: it moves and joins what computes nothing. All algebra was ours, and is done."""

CONTENT = Path("Data/com.apple.CoreML")
MODEL, WEIGHTS = "model.mlmodel", "weights"


@dataclass(frozen=True)
class Extras:
    """What a package says besides its program.

    Attributes:
        metadata: Fields of Core ML's Metadata message: author, shortDescription, versionString, license.
        source: Where the model comes from, by key.
        image: Name of the input that takes images; "" for none.
        grayscale: Whether that image has one channel.
        labels: Names of the classes; empty for a model that classifies nothing.
        scores: Name of the output that holds their probabilities.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    grayscale: bool = False
    labels: Sequence[str] = ()
    scores: str = ""


def convert(mil: Any, release: int, extras: Extras) -> Any:
    """A model in coremltools' hands, to be deployed to that iOS and later.

    Raises:
        Unsupported: coremltools refuses the program, as it does ranks that it cannot lower.
    """
    ct = coremltools()
    with quiet():
        inputs = None
        if extras.image:
            number = ct.converters.mil.mil.types.nptype_from_builtin
            layout = ct.colorlayout.GRAYSCALE if extras.grayscale else ct.colorlayout.RGB
            inputs = [
                ct.ImageType(name=name, shape=var.shape, color_layout=layout)
                if name == extras.image
                else ct.TensorType(name=name, shape=var.shape, dtype=number(var.dtype))
                for name, var in mil.functions["main"].inputs.items()
            ]
        classifier = None
        if extras.labels:
            classifier = ct.ClassifierConfig(list(extras.labels), predicted_probabilities_output=extras.scores)
        try:
            return ct.convert(
                mil, convert_to="mlprogram", inputs=inputs, classifier_config=classifier,
                minimum_deployment_target=getattr(ct.target, f"iOS{release}"), compute_precision=ct.precision.FLOAT32,
                pass_pipeline=ct.PassPipeline(list(PASSES), "structure"), skip_model_load=True,
            )  # fmt: skip
        except ValueError as error:  # which moves of high rank it takes apart, its passes alone know
            raise Unsupported("coreml: coremltools does not take the program", why=str(error).strip()) from error


def save(model: Any, path: Path, extras: Extras) -> None:
    """Write the package: what coremltools makes, without the date and the random identifiers that it puts in.

    Raises:
        InternalError: There is something at `path`.
    """
    if path.exists():
        raise InternalError(f"'{path.name}' is there already", where=[str(path)])
    spec = model.get_spec()
    metadata = spec.description.metadata
    metadata.userDefined.clear()
    metadata.userDefined.update(extras.source)
    for field_name, text in extras.metadata.items():
        setattr(metadata, field_name, text)
    content = path / CONTENT
    content.mkdir(parents=True)
    (content / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    shutil.copytree(model.weights_dir, content / WEIGHTS)
    (path / "Manifest.json").write_text(_manifest(content), encoding="utf-8")


def _manifest(content: Path) -> str:
    """The list of a package's items, each under an identifier that follows from all bytes."""
    digest = hashlib.sha256()
    for file in sorted(each for each in content.rglob("*") if each.is_file()):
        digest.update(file.read_bytes())
    names = {MODEL: "CoreML Model Specification", WEIGHTS: "CoreML Model Weights"}
    identifiers = {name: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest.hexdigest()} {name}")) for name in names}
    items = {
        identifiers[name]: {"author": content.name, "description": text, "name": name, "path": f"{content.name}/{name}"}
        for name, text in names.items()
    }
    whole = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": identifiers[MODEL]}
    return json.dumps(whole, indent=4, sort_keys=True) + "\n"


def specification(path: Path) -> Any:
    """The message that a package on the disk holds.

    Raises:
        InternalError: It holds none that coremltools can read.
    """
    ct = coremltools()
    with quiet():
        try:
            return ct.utils.load_spec(str(path))
        except Exception as error:
            raise InternalError(f"'{path.name}' does not read back", where=[str(path)], why=str(error)) from error


def operations(spec: Any) -> list[Any]:
    """The operations of a program, constants apart (compressed weights are constants too)."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return [each for each in block.operations if each.type != "const" and not each.type.startswith("constexpr_")]


def operators(spec: Any) -> dict[str, int]:
    """How often each kind of operation stands in a program."""
    return dict(sorted(Counter(each.type for each in operations(spec)).items()))
