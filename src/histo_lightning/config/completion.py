"""Completion of commands, keys and options in a shell: ``eval "$(histo-lightning --completion bash)"``."""

from histo_lightning.config.checks import schema_keys
from histo_lightning.config.schema import SCHEMAS
from histo_lightning.config.tree import option_names
from histo_lightning.errors import UserError

BASH = r"""_histo_lightning() {
  local line="${COMP_LINE:0:COMP_POINT}" word prefix=""
  word="${line##* }"
  [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]] && prefix="${word%"${word##*=}"}"
  local IFS=$'\n'
  COMPREPLY=($(histo-lightning --complete "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
}
complete -o nospace -F _histo_lightning histo-lightning"""
SCRIPTS = {"bash": BASH, "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}"}


def script(shell: str) -> str:
    """What a shell evaluates to complete the command ``histo-lightning``; UserError for a shell that is not known."""
    if shell not in SCRIPTS:
        raise UserError(f"--completion {shell}: allowed are {', '.join(SCRIPTS)}")
    return SCRIPTS[shell]


def candidates(words: list[str], commands: list[str]) -> list[str]:
    """What may complete the last word of a line: a command, ``key=`` or ``group=option``."""
    typed = " ".join(words).split(" ")
    command, word = typed[1] if len(typed) > 2 else "", typed[-1]
    if not command:
        return [name for name in commands if name.startswith(word)]
    if command not in SCHEMAS:
        return []
    name, equals, value = word.partition("=")
    if equals:
        listed, comma, last = value.rpartition(",")
        options = [option for option in option_names(name) if option.startswith(last)]
        return [f"{name}={listed}{comma}{option}" for option in options]
    keys = [*schema_keys(SCHEMAS[command]), "experiment", "debug", "hydra/launcher"]
    return sorted({f"{key}=" for key in keys if key.startswith(word)})
