"""`tollgate serve`: the gateway, and on stderr how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, settings_of

if TYPE_CHECKING:
    from gateway.settings import Settings

DEMO = "demo-"
"""Keys that begin so hold on this machine only, so they may be printed."""
PLACEHOLDER = "$TOLLGATE_KEY"


def serve(
    config: ConfigOption = CONFIG,
    host: Annotated[str | None, typer.Option(help="Listen here instead of where the settings say.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The same for the port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, instead of what the settings say.")] = None,
    json: JsonOption = False,
) -> None:
    """Serve until stopped.  SIGHUP or an edit of the file reloads the settings."""
    settings = settings_of(config, json=json)
    from gateway.server import address, serve

    where = address(settings, host, port)
    if json:
        import orjson

        typer.echo(orjson.dumps(_facts(settings, where)), err=True)
    else:
        _greet(settings, where, demo_key(config))
    serve(config, host, port, workers)


def demo_key(config: Path) -> str:
    """The first key of the file that may be shown; else a name for one."""
    import os

    from gateway.document import read

    document = read(config.read_text("utf-8"), os.environ, str(config)).value
    for tenant in document.get("tenants") or ():
        for key in tenant.get("keys") or ():
            if str(key.get("key", "")).startswith(DEMO):
                return str(key["key"])
    return PLACEHOLDER


def _model(settings: Settings) -> str:
    return next(iter([*settings.routes, *settings.deployments]), "MODEL")


def _facts(settings: Settings, where: str) -> dict[str, Any]:
    return {
        "listening": where,
        "base_url": f"{where}/v1",
        "metrics": f"{where}/metrics",
        "admin": f"{where}/admin/v1" if settings.admin_key else None,
        "models": [*settings.routes, *settings.deployments],
        "notices": list(settings.notices),
    }


def _greet(settings: Settings, where: str, key: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str = "", style: str = "") -> None:
        console.print(text, style=style, markup=False)

    model = _model(settings)
    say(f"Tollgate on {where}", "bold")
    for notice in settings.notices:
        say(f"  note: {notice}", "yellow")
    say("\nTry it:", "bold")
    say(f"  curl {where}/v1/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\")
    say(f"""    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is a token?"}}]}}'""")
    say("\nWith the OpenAI SDK:", "bold")
    say("  from openai import OpenAI")
    say(f'  client = OpenAI(base_url="{where}/v1", api_key="{key}")')
    say(f'  print(client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hi"}}]))')
    say("\nMetrics:", "bold")
    say(f"  {where}/metrics")
    say("Admin API:", "bold")
    admin = f"{where}/admin/v1  (Authorization: Bearer and the file's admin_key)"
    say(f"  {admin if settings.admin_key else 'off: the settings have no admin_key'}")
