"""An artifact is whole or absent, and nothing of a user's is ever overwritten."""

import json

import pytest

from edgesmith.ir.errors import UsageError
from edgesmith.lowering import artifact


def make(out, text="one"):
    with artifact.staging(out) as folder:
        (folder / "src").mkdir()
        (folder / "src" / "net.c").write_text(text)
        artifact.seal(folder, {"name": "net", "target": "host"})
    return out


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_written_whole_and_read_back(tmp_path):
    found = artifact.load(make(tmp_path / "deep" / "out"))
    assert (found.name, found.target) == ("net", "host")
    assert list(found.manifest["files"]) == ["src/net.c"]
    assert everything(tmp_path) == ["deep", "deep/out", "deep/out/manifest.json", "deep/out/src", "deep/out/src/net.c"]


def test_same_input_same_bytes(tmp_path):
    first, second = (make(tmp_path / name) / artifact.MANIFEST for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_no_trace(tmp_path, error):
    with pytest.raises(error), artifact.staging(tmp_path / "deep" / "out") as folder:
        (folder / "half.c").write_text("half")
        raise error
    assert everything(tmp_path) == []


def test_a_failure_keeps_the_artifact_that_was_there(tmp_path):
    out = make(tmp_path / "out")
    with pytest.raises(RuntimeError), artifact.staging(out) as folder:
        (folder / "half.c").write_text("half")
        raise RuntimeError
    assert (artifact.load(out).folder / "src" / "net.c").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_an_untouched_artifact_is_replaced(tmp_path):
    out = make(tmp_path / "out")
    assert (make(out, "two") / "src" / "net.c").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("change", ["edited", "added", "removed", "broken"])
def test_an_artifact_changed_by_hand_is_neither_replaced_nor_run(tmp_path, change):
    out = make(tmp_path / "out")
    file = {"added": "notes.txt", "broken": artifact.MANIFEST}.get(change, "src/net.c")
    (out / file).unlink(missing_ok=True)
    if change != "removed":
        (out / file).write_text("mine")
    before = {path: (out / path).read_bytes() for path in everything(out) if (out / path).is_file()}
    with pytest.raises(UsageError, match=file.rsplit("/", 1)[-1].replace(".", r"\.")):
        make(out, "two")
    with pytest.raises(UsageError):
        artifact.load(out)
    assert before == {path: (out / path).read_bytes() for path in everything(out) if (out / path).is_file()}


def test_other_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name in ("file", "full", "link", "file/below"):
        with pytest.raises(UsageError):
            make(tmp_path / name)
    assert everything(tmp_path) == ["file", "full", "full/thesis.txt", "link"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(artifact.Path, "mkdir", refuse)
    for out in (tmp_path / "out", tmp_path / "deep" / "out"):
        with pytest.raises(UsageError, match="Permission denied"), artifact.staging(out):
            pytest.fail("there is no folder to write to")


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "out").mkdir()
    assert artifact.load(make(tmp_path / "out")).name == "net"


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"files": 3}', ""])
def test_a_foreign_manifest_is_named(tmp_path, content):
    (tmp_path / artifact.MANIFEST).write_text(content)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        artifact.load(tmp_path)


def test_another_version_is_named(tmp_path):
    out = make(tmp_path / "out")
    manifest = json.loads((out / artifact.MANIFEST).read_text())
    (out / artifact.MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UsageError, match="format 99, this version reads 1"):
        artifact.load(out)
