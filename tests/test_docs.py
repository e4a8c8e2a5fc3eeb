"""The docs build without a warning, and every Python and bash block of theirs runs."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, command
from conftest import blobs
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import detectors
import generators

PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


def run_commands(example: Example) -> None:
    """Run a bash block's lines in the current folder, with this checkout's Python and scripts."""
    for line in example.parsed.splitlines():
        python, *words = shlex.split(line)
        assert python == "python"
        done = command(*words, cwd=Path.cwd())
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("reference/")])
def test_code_blocks_run(page, tmp_path, monkeypatch):
    """In order and in one namespace."""
    parsers = [PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)]
    document = Sybil(parsers, path="../docs").parse(ROOT / "docs" / page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in (detectors.registry, generators.registry):
        monkeypatch.setattr(registry, "specs", dict(registry.specs))
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    shown = (ROOT / "docs" / page).read_text()
    assert len(examples) == shown.count("```python\n") + shown.count("```bash\n")


def test_readme_blocks_run():
    document = Sybil([PythonCodeBlockParser()], path="..").parse(ROOT / "README.md")
    X, y = blobs()
    document.namespace.update(X=X, y=y, X_new=X)
    examples = list(document.examples())
    assert len(examples) == 2
    for example in examples:
        example.evaluate()
    assert document.namespace["scores"].shape == y.shape


def test_docs_build_without_a_warning(tmp_path):
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    reference = (tmp_path / "reference" / "detectors" / "index.html").read_text()
    assert "decision_function" in reference


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in PAGES if page not in navigation] == []
