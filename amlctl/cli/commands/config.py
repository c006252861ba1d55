"""`amlctl config …`."""

from __future__ import annotations

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import Column, Table, whole

app = TyperApp(
    help="Show the settings and where each comes from",
    examples=examples("amlctl config show # values and their origins"),
)


@app.command(
    epilog=examples(
        "amlctl config show # values and their origins",
        "amlctl --workspace cloud config show --json # for a script",
        note="Order: option, AMLCTL_ variable, .amlctl.toml, the user's config.toml, default.",
    )
)
def show(ctx: typer.Context) -> None:
    """Show each setting with its value and its origin: file and line, variable, option or default"""
    from amlctl.config.settings import as_written, settings_in_use
    from amlctl.core.events import Warned

    call = invocation(ctx)
    for name, error in call.app.settings.broken.items():
        call.reporter(Warned(f"workspace {name} cannot be used: {error.message}"))
    found = settings_in_use(call.app.settings)
    table = Table.of(
        found,
        {
            whole("SETTING"): lambda one: one.key,
            Column("VALUE"): lambda one: as_written(one.value),
            whole("FROM"): lambda one: one.origin,
        },
    )
    call.result({"settings": [one.to_json() for one in found]}, [table])
