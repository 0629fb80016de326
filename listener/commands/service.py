"""Commands that run a service or look at a running one."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Annotated

import typer

from listener import __version__
from listener.commands.terminal import console, fail, run, settings_or_exit
from listener.config.settings import ReaderSettings
from listener.infrastructure.observability.logs import SecretMask

app = typer.Typer()
SIGNS = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "error": "[red]error[/red]"}


@app.command("run")
def run_service() -> None:
    """Run the service (the same as `python -m listener.main`)."""
    from listener.main import run as follow

    raise typer.Exit(follow())


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="where to listen [default: WEBSOCKET_HOST]")] = None,
    port: Annotated[
        int | None, typer.Option(help="[default: WEBSOCKET_PORT]; the next free one", min=0, max=65_535)
    ] = None,
) -> None:
    """Serve charts and browsers from Redis, without following a chain; several may run side by side."""
    from listener.serving import run_alone

    raise typer.Exit(run_alone(settings_or_exit(ReaderSettings), host, port))


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option(help="of the chart page [default: 3000 if free, else any]")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the invented traders")] = 7,
    rate: Annotated[float, typer.Option(help="trades a second", min=0.1, max=200)] = 6.0,
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None,
) -> None:
    """Start a local chain, Valkey, the backend, traders and the service, and print the chart's address."""
    from listener.demo.run import run_demo

    raise typer.Exit(run_demo(port, seed, rate, seconds))


@app.command()
def doctor() -> None:
    """Check node, chain id, contracts, Redis and backend, and say how to mend what is wrong."""
    from listener.doctor import Finding, examine

    settings = settings_or_exit()
    mask = SecretMask(settings.secrets())

    async def look() -> list[Finding]:
        findings = []
        async for finding in examine(settings):
            console.print(
                f"{SIGNS[finding.verdict]:>26}  {finding.subject}: {mask.text(finding.detail)}",
                highlight=False,
            )
            findings.append(finding)
        return findings

    findings = run(look())
    raise typer.Exit(int(any(finding.verdict == "error" for finding in findings)))


@app.command()
def health() -> None:
    """Ask the running service on this host whether it is alive; exit code 0 or 1."""
    settings = settings_or_exit(ReaderSettings)
    port, scheme = settings.websocket_port, "https" if settings.gateway_tls_cert else "http"
    anyone = ssl.create_default_context()  # the certificate names another host than this one
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    url = f"{scheme}://127.0.0.1:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=3, context=anyone) as answer:  # noqa: S310 - of ours
            console.print_json(json.dumps(json.load(answer)))
    except (OSError, urllib.error.URLError, ValueError) as error:
        fail(f"no answer on port {port}: {error}")


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@app.command("api-key")
def api_key(
    scope: Annotated[list[str] | None, typer.Option(help="read, stream or admin; may be repeated")] = None,
    name: Annotated[str, typer.Option(help="id of the key [default: a random one]")] = "",
) -> None:
    """Make an API key; print it, this once, and what to add to GATEWAY_API_KEYS."""
    from listener.infrastructure.gateway.keys import Scope, make_key

    try:
        key, kept = make_key(frozenset(map(Scope, scope or ["read", "stream"])), name)
    except ValueError as error:
        fail(str(error))
    console.print(f"key:               {key}", highlight=False, soft_wrap=True)
    console.print(f"GATEWAY_API_KEYS:  {kept}", highlight=False, soft_wrap=True)
