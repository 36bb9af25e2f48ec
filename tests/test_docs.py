"""The documents fit a screen, and name files and sections that exist; so does the code that cites them."""

import re
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

MODEL = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
WIDTH = 110  # columns
# Written by people; the cards of models are written by the program.
PAGES = sorted(
    [
        *ROOT.glob("[A-Z]*.md"),
        *(page for top in ("docs", "examples", "tests") for page in (ROOT / top).rglob("*.md")),
    ]
)
# "docs/model.md, section 4" or "docs/model.md, sections 4 to 6", also broken over two lines of a docstring.
CITATION = re.compile(r"docs/model\.md,\s+sections? (\d+)(?: (?:to|and) (\d+))?")


def citations(text: str) -> set[int]:
    """The numbers of all sections that a text cites."""
    return {int(number) for found in CITATION.findall(text) for number in found if number}


def code() -> list[Path]:
    folders = (ROOT / name for name in ("cli", "pipelines", "storage", "stages"))
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def test_citations_are_found_however_they_are_written() -> None:
    text = "docs/model.md, section 4; docs/model.md, sections 5 to 6, docs/model.md,\n    section 12"
    assert citations(text) == {4, 5, 6, 12}


def test_the_code_cites_sections_that_exist() -> None:
    sections = {int(number) for number in re.findall(r"^## (\d+)\. ", MODEL, re.MULTILINE)}
    cited = {path: citations(path.read_text(encoding="utf-8")) for path in code()}
    assert {(path, number) for path, numbers in cited.items() for number in numbers - sections} == set()
    # Section 10 is what this project demands of itself; tests hold that.
    assert sections - set().union(*cited.values()) <= {10}


def test_the_code_cites_the_page_by_section() -> None:
    loose = [
        path for path in code() if (text := path.read_text()).count("docs/model.md") != len(CITATION.findall(text))
    ]
    assert loose == []


def test_files_that_the_page_names_exist() -> None:
    table = re.findall(r"^\| \d+\. .* \| (.*) \|$", MODEL, re.MULTILINE)
    names = [name for row in table for name in re.findall(r"`([\w/.]+)`", row)]
    assert len(table) == 11
    assert [name for name in names if not any((base / name).exists() for base in (ROOT / "stages", ROOT))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_is_wider_than_a_screen(page: Path) -> None:
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    assert {number: len(line) for number, line in lines if len(line) > WIDTH} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:cli|configs|docs|examples|pipelines|ss4d|stages|storage|tests)/[\w/.-]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_tree_in_the_readme_names_what_is_there() -> None:
    tree = re.search(r"## The tree\n\n```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert tree is not None
    folder = ROOT
    for line in tree[1].splitlines():
        names = line[:25].split()
        base = folder if line.startswith(" ") else ROOT
        assert names, line
        assert all((base / name).exists() for name in names), line
        folder = folder if line.startswith(" ") else ROOT / names[0]
