"""Commands about nodes: run one, its peers, its state."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .limits import describe
from .running import json_option, offline_option, peer_option, print_json, run, settings
from .text import human_bytes, human_files, human_time, one_line, say

if TYPE_CHECKING:
    from p2phub.node.node import Node
    from p2phub.node.operations.federations import FederationState
    from p2phub.node.operations.status import Status

PEER_PORT = 8627  # the peer door's default; spec/transport.md §1
LOCAL_PORT = 8628  # the local door's default; spec/local-api.md §1


@click.command()
@click.option("--listen", default=f"0.0.0.0:{PEER_PORT}", show_default=True, metavar="HOST:PORT", help="The peer door.")
@click.option(
    "--local", default=f"127.0.0.1:{LOCAL_PORT}", show_default=True, metavar="HOST:PORT", help="The local door."
)
@click.option(
    "--public", metavar="HOST:PORT", help="Also let everybody read what is public here, such as your web server."
)
@click.option(
    "--public-host", "public_hosts", multiple=True, metavar="NAME", help="By which name that is called; repeatable."
)
@click.option("--peer", "peers_given", multiple=True, metavar="ADDRESS", help="A peer to begin with; can be repeated.")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="Where peers should call this node.")
@click.option("--plain", is_flag=True, help="No TLS between nodes, for a closed cluster; hashes are always checked.")
@click.option("--cluster", metavar="LABEL", help="Of the nodes on one fast network with this one (P2PHUB_CLUSTER).")
@click.option("--site", metavar="LABEL", help="Of the nodes behind the same link to the outside (P2PHUB_SITE).")
@click.option("--no-lan", is_flag=True, help="Do not look for nodes in the local network (P2PHUB_LAN=off).")
@click.option(
    "--upstream", metavar="URL", help="The hub to ask for what no peer has (P2PHUB_UPSTREAM); its token: HF_TOKEN."
)
@click.option("--upstream-hub", metavar="HOST", help="The hub whose names it has, if it is a cache of another one.")
@click.option("--upstream-token-file", type=click.Path(path_type=Path), help="Where its token is, if not in HF_TOKEN.")
@click.option("--share-restricted", is_flag=True, help="Let peers have what that hub does not give to everybody, too.")
@click.option("--witness", is_flag=True, help="Vouch for heads of logs that only grew, for whoever asks.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Write JSON to this file once the node answers.")
def node(
    listen: str,
    local: str,
    public: str | None,
    public_hosts: tuple[str, ...],
    peers_given: tuple[str, ...],
    advertise: tuple[str, ...],
    plain: bool,
    cluster: str | None,
    site: str | None,
    no_lan: bool,
    upstream: str | None,
    upstream_hub: str | None,
    upstream_token_file: Path | None,
    share_restricted: bool,
    witness: bool,
    ready_file: Path | None,
) -> None:
    """Run a node: serve what is here, replicate the catalogue, answer on this machine."""
    from msgspec.structs import replace

    from p2phub.core.labels import check_label
    from p2phub.core.names import parse_address, parse_endpoint
    from p2phub.gateway.daemon import Public, run_daemon
    from p2phub.node.running import run_to_end

    said = {
        "P2PHUB_UPSTREAM": upstream,
        "P2PHUB_UPSTREAM_HUB": upstream_hub,
        "P2PHUB_UPSTREAM_TOKEN_FILE": upstream_token_file,
    }
    chosen = settings(plain=plain, more={name: str(value) for name, value in said.items() if value})
    for endpoint in advertise:
        parse_endpoint(endpoint)
    for label in filter(None, (cluster, site)):
        check_label(label)

    if public_hosts and not public:
        raise click.UsageError("--public-host says by which name the door of --public is called")

    work = partial(
        run_daemon,
        replace(
            chosen,
            advertise=advertise,
            cluster=cluster or chosen.cluster,
            site=site or chosen.site,
            lan=chosen.lan and not no_lan,
            share_restricted=share_restricted or chosen.share_restricted,
            witness=witness,
        ),
        listen=parse_endpoint(listen),
        local=parse_endpoint(local),
        public=Public(*parse_endpoint(public), public_hosts) if public else None,
        peers=[parse_address(address) for address in peers_given],
        ready_file=ready_file.absolute() if ready_file else None,
        ready=_say_ready,
    )
    run_to_end(work)


def _say_ready(running: Node, local_url: str, public_url: str | None) -> None:
    sys.stderr.write(f"node {running.id} is ready\n")
    for address in running.addresses:
        sys.stderr.write(f"  peers reach it at {address}\n")
    sys.stderr.write(f"  this machine reaches it at {local_url}\n")
    if running.witness is not None:
        sys.stderr.write("  it vouches for logs of publishers who say:\n")
        sys.stderr.write(f"    p2phub witness add {running.witness.key} {running.addresses[0]}\n")
    if public_url:
        sys.stderr.write(f"  everybody may read what is public here at {public_url}\n")
    sys.stderr.flush()


@click.group()
def peers() -> None:
    """The peers that this node knows."""


@peers.command("ls")
@json_option
def peers_ls(as_json: bool) -> None:
    """List the peers: when each last answered, what it gave, and who is banned why."""
    from p2phub.node.operations.peers import ListPeers

    found = run(ListPeers())
    if as_json:
        print_json(found)
        return
    if not found:
        say("no peers are known: p2phub peers add p2phub://NODEID@HOST:PORT", err=True)
    for peer in found:
        say(peer.addresses[0] if peer.addresses else peer.node)
        state = f"last seen {human_time(peer.last_seen)}, gave {human_bytes(peer.received)}"
        say(f"  {peer.link}, {state}" + (", added by you" if peer.added else ""))
        if peer.banned_until:
            say(f"  banned until {human_time(peer.banned_until)}: {peer.ban_reason}")
        elif peer.skew:
            say(f"  speaks another version: {peer.skew}")
        elif peer.last_error:
            say(f"  failed {peer.failures} times: {peer.last_error}")


@peers.command("add")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@offline_option
@json_option
def peers_add(addresses: tuple[str, ...], offline: bool, as_json: bool) -> None:
    """Add peers by address, p2phub://NODEID@HOST:PORT, and ask them for news."""
    from p2phub.node.operations.peers import AddPeers

    added = run(AddPeers(addresses), offline=offline)
    if as_json:
        print_json(added)
        return
    for peer in added:
        say(f"added {peer.node}" + ("" if peer.last_seen else ", which has not answered yet"))


@peers.command("rm")
@click.argument("node_id", metavar="NODEID|ADDRESS")
@json_option
def peers_rm(node_id: str, as_json: bool) -> None:
    """Forget a peer, and its ban if it has one."""
    from p2phub.node.operations.peers import RemovePeer

    result = run(RemovePeer(node_id))
    if as_json:
        print_json(result)
    else:
        say(f"forgot {node_id}")


@click.command()
@click.argument("reference", metavar="REF")
@offline_option
@json_option
def swarm(reference: str, offline: bool, as_json: bool) -> None:
    """Show who gives a repository, at which rate, and what a running download of it waits for."""
    from p2phub.node.operations.swarm import ExplainSwarm

    result = run(ExplainSwarm(reference), offline=offline)
    if as_json:
        print_json(result)
        return
    say(f"{human_bytes(result.here)} of {human_bytes(result.size)} in {human_files(result.files)} are here")
    if result.fetching:
        say(f"  fetching at {human_bytes(result.rate)}/s")
    if result.waiting_for:
        say(f"  waiting for {result.waiting_for}")
    for provider in result.providers:
        has = f", has {provider.has:.0%}" if provider.has is not None else ""
        rate = f", {human_bytes(provider.rate)}/s" if provider.rate else ""
        gave = f", gave {human_bytes(provider.received)}" if provider.received else ""
        why = f" ({provider.reason})" if provider.reason else ""
        say(f"{provider.name[:12]}…  {provider.state}{has}{rate}{gave}{why}")
    if not result.providers:
        say("no peers are known: p2phub peers add p2phub://NODEID@HOST:PORT", err=True)


@click.command()
@click.argument("reference", metavar="REF")
@offline_option
@peer_option
@json_option
def providers(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show which nodes have a repository, how much of it, and when they said so."""
    from p2phub.node.operations.swarm import ListProviders

    result = run(ListProviders(reference), offline=offline, peers=peer)
    if as_json:
        print_json(result)
        return
    for provider in result.providers:
        say(provider.addresses[0] if provider.addresses else provider.node)
        has = "all of it" if provider.has == 1 else f"{provider.has:.0%}" if provider.has is not None else "some of it"
        why = f" ({provider.reason})" if provider.reason else ""
        now = provider.state in ("offers", "fetching")
        when = "now" if now else f"as it said {human_time(provider.time)}; it was not asked now"
        if provider.state in ("busy", "gone"):
            when = f"as it said {human_time(provider.time)}; it does not answer now{why}"
        say(f"  {provider.link}, has {has}, {when}")
    if not result.providers:
        asked = "1 peer was" if result.asked == 1 else f"{result.asked} peers were"
        say(f"no other node is known to have it; {asked} asked", err=True)


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show the state of the node."""
    from p2phub.node.operations.status import GetStatus

    result = run(GetStatus())
    if as_json:
        print_json(result)
        return
    rows = [
        ("node", result.node_id),
        ("running", f"since {human_time(result.started)}" if result.serving else "no (p2phub node starts it)"),
        ("addresses", ", ".join(result.addresses)),
        ("publishes as", result.namespace or "nobody (p2phub id new makes an identity)"),
        ("home", result.home),
        ("store", result.store),
        ("peers", f"{result.peers} known, {result.peers_seen} seen in the last five minutes"),
        ("neighbours", f"{len(result.neighbours)}" if result.serving else ""),
        ("own log", _confirmed(result)),
        ("too early", _early(result)),
        ("catalogue", _catalogue(result)),
        ("forked logs", ", ".join(result.forked_logs)),
        ("manifests", str(result.manifests)),
        ("federations", "; ".join(_federation(each) for each in result.federations)),
        ("pledges", _pledged(result)),
        ("uploaded", f"{human_bytes(result.uploaded)}, {result.uploads} uploads running"),
        ("upstream", _upstream(result)),
        ("limits", "; ".join(f"{limit.link} {describe(limit)}" for limit in result.limits)),
        ("clock", _clock(result)),
        ("policy", result.policy_trouble and f"nothing is given to anybody: {one_line(result.policy_trouble)}"),
    ]
    for label, value in rows:
        if value:
            say(f"{label:>13}  {value}")


def _upstream(result: Status) -> str:
    """Say which hub is asked for what no peer has, and how it is."""
    if (upstream := result.upstream) is None:
        return ""
    states = {"ready": "", "busy": "; it asked to be left alone for a while", "down": "; it did not answer lately"}
    names = "" if upstream.url.endswith(f"://{upstream.hub}") else f", for the names of {upstream.hub}"
    return f"{upstream.url}{names}{' (with a token)' if upstream.token else ''}{states[upstream.state]}"


def _clock(result: Status) -> str:
    """Say whose clock is wrong, as far as the clocks of peers tell."""
    if (clock := result.clock) is None:
        return ""
    from p2phub.core.ages import describe_gap

    how = "behind" if clock.ahead > 0 else "ahead of"
    difference = f"{describe_gap(clock.ahead)} {how}"
    if clock.apart == clock.peers == 1:
        return f"{difference} that of the one peer that answered: one of the two is wrong"
    if 2 * clock.apart > clock.peers:
        return f"{difference} those of {clock.apart} of {clock.peers} peers that answered: set it right"
    return f"{difference} those of {clock.apart} of {clock.peers} peers that answered: these are wrong"


def _catalogue(result: Status) -> str:
    repositories = "1 repository" if result.models == 1 else f"{result.models} repositories"
    records = "1 record" if result.records == 1 else f"{result.records} records"
    return f"{repositories}, {records} in {'1 log' if result.logs == 1 else f'{result.logs} logs'}"


def _confirmed(result: Status) -> str:
    """Say who has the own log, as people read it."""
    if not result.own_records:
        return ""
    records = "1 record" if result.own_records == 1 else f"{result.own_records} records"
    holders = [each for each in result.confirmed if each.records >= result.own_records]
    if not holders:
        return f"{records}; no other node has confirmed to have all of them yet"
    shown = ", ".join(f"{each.node[:12]}… ({human_time(each.time)})" for each in holders[:3])
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return f"{records}, all of them confirmed by {shown}{more}"


def _early(result: Status) -> str:
    """Say what of the own log others do not take in, and what to do about it."""
    if result.early is None:
        return ""
    from p2phub.node.early import WAY_OUT, describe_early

    return f"{describe_early(result.early)}; {WAY_OUT}"


def _pledged(result: Status) -> str:
    """Say how promises are kept, as people read it."""
    pledged = result.pledged
    if not pledged.pledges:
        return ""
    revisions = "1 revision" if pledged.revisions == 1 else f"{pledged.revisions} revisions"
    text = f"{pledged.pledges}, about {revisions}, {pledged.here} of them whole here"
    if pledged.short:
        text += f"; of {pledged.short} there are fewer copies than promised (p2phub pledge ls)"
    return text + (f"; {pledged.problem}" if pledged.problem else "")


def _federation(state: FederationState) -> str:
    members = "1 member" if state.members == 1 else f"{state.members} members"
    standing = members if state.member else f"this home does not count (p2phub federation ls {state.name})"
    return f"{state.name}: {standing}" + (f", {state.warning}" if state.warning else "")
