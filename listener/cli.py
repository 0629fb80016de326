"""The `listener` command; its parts are in `listener/commands`."""

import typer

from listener.commands import alerts, data, service, stream, webhooks

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Follows an EVM chain and turns trades into candles in Redis and events for a backend.",
)
for part in (service.app, data.app, stream.app):
    app.add_typer(part)
app.add_typer(alerts.app, name="alerts")
app.add_typer(webhooks.app, name="webhooks")


def main() -> None:
    """Entry point of the `listener` command."""
    app()


if __name__ == "__main__":
    main()
