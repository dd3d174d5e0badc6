import click


@click.command("sweep")
def command() -> None:
    """X."""
