"""The command by which a publisher says what it found of somebody's model."""

from __future__ import annotations

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import say


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--claim",
    type=click.Choice(["review", "scan", "evaluation", "endorsement", "blocked"]),
    required=True,
    help="What it is: blocked puts it on your block list.",
)
@click.option("--bad", is_flag=True, help="It was found bad.")
@click.option("--withdraw", is_flag=True, help="Take back what you said before.")
@click.option("--file", "path", metavar="PATH", help="It is about this file alone, wherever else it turns up.")
@click.option("--metric", metavar="TASK/DATASET/METRIC=VALUE", help="The result of an evaluation.")
@click.option("--tool", help="What it was found with.")
@click.option("-m", "--message", default="", help="In words.")
@offline_option
@peer_option
@json_option
def attest(
    reference: str,
    claim: str,
    bad: bool,
    withdraw: bool,
    path: str | None,
    metric: str | None,
    tool: str | None,
    message: str,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what you found of REF, signed: others see it in `info`, and their policy may go by your word."""
    from p2phub.node.operations.records import AssessContent

    if bad and withdraw:
        raise click.UsageError("give either --bad or --withdraw")
    verdict = "withdrawn" if withdraw else "bad" if bad or claim == "blocked" else "good"
    result = run(
        AssessContent(
            reference=reference,
            claim=claim,  # type: ignore[arg-type]
            verdict=verdict,  # type: ignore[arg-type]
            path=path,
            metric=metric,
            tool=tool,
            message=message,
        ),
        offline=offline,
        peers=peer,
    )
    if as_json:
        print_json(result)
    else:
        say(f"said of {result.subject}: {result.claim}, {result.verdict}")
