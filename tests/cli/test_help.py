"""What `--help` says: examples that can be copied, and the commands in the order of use."""

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import ss4d
from ss4d.cli.main import app


def commands(group: Any, *words: str) -> dict[tuple[str, ...], str]:
    """The manual of every command as it is written, by the words that call it."""
    if not hasattr(group, "commands"):
        return {words: group.callback.__doc__}
    return {k: v for name, command in group.commands.items() for k, v in commands(command, *words, name).items()}


MANUALS = commands(typer.main.get_command(app))
EXAMPLES = {words: re.findall(r"^ +(ss4d .*)$", text, re.MULTILINE) for words, text in MANUALS.items()}


@pytest.mark.parametrize("words", [words for words, examples in EXAMPLES.items() if examples], ids=" ".join)
def test_examples_stand_on_lines_of_their_own(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).stdout
    assert set(EXAMPLES[words]) <= {line.strip() for line in shown.splitlines()}


@pytest.mark.parametrize("words", [words for words, examples in EXAMPLES.items() if len(examples) > 1], ids=" ".join)
def test_examples_follow_each_other_without_blank_lines(words: tuple[str, ...]) -> None:
    blocks = re.findall(r"(?:^ +ss4d .*\n(?: {9,}.*\n)*)+", MANUALS[words], re.MULTILINE)
    assert len(blocks) == 1


@pytest.mark.parametrize("words", [(), *((name,) for name in ("run", "dataset", "data"))], ids=" ".join)
def test_h_is_short_for_help(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, [*words, "-h"]).stdout == CliRunner().invoke(app, [*words, "--help"]).stdout != ""


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"ss4d {ss4d.__version__}\n")


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("ss4d insp", {"inspect"}),
        ("ss4d run clip.mp4 --goal s", {"segmentation", "sparse_structure", "structure_fit", "slat"}),
        ("ss4d dataset run birds --goal dec", {"decoding"}),
        ("ss4d inspect output/runs/bird exp", {"export"}),
    ],
)
def test_a_shell_completes_commands_and_stages(
    typed: str, proposed: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    monkeypatch.setenv("_SS4D_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        app(prog_name="ss4d")
    assert set(capsys.readouterr().out.split()) == proposed


def test_the_list_begins_with_what_a_user_begins_with() -> None:
    assert [words[0] for words in MANUALS][:5] == ["run", "plan", "inspect", "report", "diff"]
    assert all(EXAMPLES[(name,)] for name in ("run", "plan", "inspect", "report", "diff", "verify", "gc", "pack"))
