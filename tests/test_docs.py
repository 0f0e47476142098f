"""What the documents tell is so: every command and snippet runs, every link leads somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{language})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.emulator
@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page, "sh|python")], ids=lambda page: page.stem)
def test_snippets_run(page, tmp_path):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    for line in "".join(snippets(page, "sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "edgesmith", f"{page.name} shows a command of another program: {line}"
        run(tmp_path, "-m", "edgesmith", *arguments)
    for snippet in snippets(page, "python"):
        run(tmp_path, "-c", snippet)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in readme] == []


def test_files_that_contributing_names_exist():
    named = re.findall(r"`([\w/]+(?:\.\w+|/))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    found = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert [name for name in named if not (ROOT / name).exists() and Path(name).name not in found] == []


def test_options_in_the_documents_are_those_of_the_command():
    from edgesmith.cli import commands

    verbs = {verb: commands.commands[verb].params for verb in ("bench", "check", "compile", "run", "search", "show")}
    options = {verb: {name for each in params for name in (*each.opts, *each.secondary_opts)}
               for verb, params in verbs.items()}  # fmt: skip
    for verb, known in options.items():
        page = (ROOT / "docs" / f"{verb}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page))
        assert named - set.union(*options.values()) == set()
        assert {name for name in known if name.startswith("--")} - {"--json"} <= named


def test_debian_packages_are_those_of_the_runner():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"apt-get install .*", script)
    installed = [word for word in line.split("</dev/null")[0].split()[2:] if not word.startswith("-")]
    assert f"`{' '.join(installed)}`" in PAGES[0].read_text(encoding="utf-8").replace("\n", " ")
