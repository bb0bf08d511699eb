"""``smeconf completion SHELL``: the script that teaches a shell our commands."""

from __future__ import annotations

import os

import click
from click.shell_completion import ShellComplete, get_completion_class

_SCRIPTS = os.path.join(os.path.dirname(__file__), "completions")


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes the commands' words in a shell.

    \b
    bash: eval "$(smeconf completion bash)"     in ~/.bashrc
    zsh:  eval "$(smeconf completion zsh)"      in ~/.zshrc, behind compinit
    fish: smeconf completion fish | source      in ~/.config/fish/config.fish
    """
    with open(os.path.join(_SCRIPTS, shell), encoding="utf-8") as script:
        click.echo(script.read())
    kind = get_completion_class(shell)
    assert kind is not None
    command = context.find_root().command
    # Of the base class: bash's own asks the bash at hand for its version.
    click.echo(
        ShellComplete.source(kind(command, {}, "smeconf", "_SMECONF_COMPLETE")).strip()
    )
