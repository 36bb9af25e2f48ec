"""`ss4d stages`: every stage and its implementations, with their parameters."""

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from ss4d.cli.console import output, say
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, stage_names
from ss4d.cli.tables import print_table

if TYPE_CHECKING:
    from ss4d.pipelines.implementation import Stage
    from ss4d.pipelines.offers import Offer


def stages(
    stage: Annotated[
        str | None, typer.Argument(metavar="[STAGE]", autocompletion=stage_names, help="Only this stage.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Lists the stages and their implementations, with parameters, types, defaults, ranges and units.

    Choose one with **--set STAGE.method=NAME**, or in a configuration file. Installed packages can add stages and
    implementations, which are listed here, too. Exit code 1 if one of them cannot be used.

    For example:

        ss4d stages
        ss4d stages segmentation
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.errors import ConfigError, PluginError
        from ss4d.pipelines.offers import offers
        from ss4d.pipelines.registry import installed, unknown_names

        signal.signal(signal.SIGINT, signal.default_int_handler)
        registry = installed()
        names = registry.stages() if stage is None else [registry.stage(stage).name]
        found, problems = offers(registry), list(unknown_names(registry))
        for name in names:
            try:
                _print_stage(registry.stage(name))
            except (ConfigError, PluginError) as error:
                problems.append(str(error))
            for offer in found:
                if offer.stage == name:
                    _print(offer)
                    problems += [offer.problem] if offer.problem else []
        for problem in dict.fromkeys(problems):
            say(f"ss4d: {problem}")
        if problems:
            raise typer.Exit(FAILED)


def _print_stage(stage: "Stage") -> None:
    package = f", added by {stage.package}" if stage.package else ""
    output(f"{stage.name}: {stage.meaning}; gives {'files' if stage.gives_files else 'arrays'}{package}\n")


def _print(offer: "Offer") -> None:
    if offer.problem:
        output(f"{offer.stage}.method = {offer.methods[0]}: cannot be used\n")
        return
    usual = " (default)" if offer.default else ""
    output(f"{offer.stage}.method = {' | '.join(offer.methods)}{usual}, from {offer.package}")
    random = ", random numbers" if offer.seeded else ""
    networks = f"; networks: {', '.join(offer.networks)}" if offer.networks else ""
    output(f"  takes: {', '.join(offer.takes) or 'nothing'}{random}{networks}")
    print_table(
        ("key", "type", "default", "range", "meaning"),
        [(p.key, p.kind, p.default, p.limits, p.meaning) for p in offer.parameters],
    )
    output("")
