"""Completion of commands, keys and options in a shell: ``eval "$(histo-lightning --completion bash)"``."""

from histo_lightning.config.checks import schema_keys
from histo_lightning.config.schema import SCHEMAS
from histo_lightning.config.tree import conf_dir
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
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH


def script(shell: str) -> str:
    """What a shell evaluates to complete the command ``histo-lightning``.

    Raises:
        UserError: a shell that is not known.
    """
    scripts = {"bash": BASH, "zsh": ZSH}
    if shell not in scripts:
        raise UserError(f"--completion {shell}: allowed are {', '.join(scripts)}")
    return scripts[shell]


def candidates(words: list[str], commands: list[str]) -> list[str]:
    """What may stand in place of the last word of a line: a command, ``key=`` or ``group=option``."""
    typed = " ".join(words).split(" ")
    command, word = typed[1] if len(typed) > 2 else "", typed[-1]
    if not command:
        return [name for name in commands if name.startswith(word)]
    if command not in SCHEMAS:
        return []
    name, equals, value = word.partition("=")
    if equals:
        listed, comma, last = value.rpartition(",")
        options = _options(name)
        return [f"{name}={listed}{comma}{option}" for option in options if option.startswith(last)]
    keys = [*schema_keys(SCHEMAS[command]), "experiment", "debug", "hydra/launcher"]
    return sorted({f"{key}=" for key in keys if key.startswith(word)})


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if not path.stem.startswith("_"))
