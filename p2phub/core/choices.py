"""The words that people choose from, wherever a choice is asked for, kept or sent.

Apart from what they stand for, so that a command that only passes a choice on does
not load the code that acts on it.
"""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["model", "dataset"]  # of repository; spec/manifest.md §1
KINDS: tuple[Kind, ...] = get_args(Kind)

Profile = Literal["fixed-1m", "cdc-1m", "tensor-1m"]  # how a file is cut; spec/content.md §5
PROFILES: tuple[Profile, ...] = get_args(Profile)

LinkMode = Literal["auto", "reflink", "hard", "sym", "copy"]  # how a file is placed; spec/store.md §4
LINK_MODES: tuple[LinkMode, ...] = get_args(LinkMode)

LinkClass = Literal["lan", "site", "federation", "internet"]  # what a link costs, the cheapest first; spec/links.md §1
LINK_CLASSES: tuple[LinkClass, ...] = get_args(LinkClass)

BillForm = Literal["cyclonedx", "spdx"]  # of a bill of materials; spec/model-signing.md §5

BindingHow = Literal["first use", "added", "accepted"]  # how a name came to mean a publisher; spec/names.md §8

PLEDGE_REPLICAS_MAX = 100  # copies that a pledge may ask for; spec/pledges.md §1
PLEDGE_DAYS_MAX = 3660  # that a pledge may last; spec/pledges.md §1

DOMAIN_NODES_MAX = 16  # nodes that the file of a domain names; spec/names.md §6
GranteeKind = Literal["namespace", "node"]  # to whom a private repository is granted; spec/private.md §2

Visibility = Literal["public", "unlisted", "private"]  # of a repository; spec/private.md §1

GatePer = Literal["person", "institution"]  # who must accept a licence; spec/gates.md §1
GateApproval = Literal["automatic", "manual"]  # whether that is enough; spec/gates.md §1
LICENCE_SIZE_MAX = 32 * 1024  # characters; spec/gates.md §1

# What is said of content, and how it was found; spec/rules.md
Judgement = Literal["evaluation", "scan", "review", "endorsement", "blocked"]
Verdict = Literal["good", "bad", "withdrawn"]

DEFAULT_BRANCH = "main"  # where no revision is given; spec/names.md §1
