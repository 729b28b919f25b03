"""Command lines with a config, ``--config FILE.py:ARGUMENT --config.FIELD=VALUE ...``, beside a command's own flags."""

import inspect
import pathlib
import re
import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from neurolm_jax.command import folder_of_configs, make_configs_importable
from neurolm_jax.configuration import check_fields, flat, follow
from neurolm_jax.errors import UserError
from neurolm_jax.suggestions import did_you_mean

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with its argument after a colon.")
HELP = ("-h", "--help", "-help", "--helpfull")
_FAULTS = (flags.Error, AttributeError, LookupError, TypeError, ValueError, OSError, ImportError)


def parse_flags(argv: list[str], *needed: str) -> None:
    """Read a command line, of whose flags some are needed; ``--help`` prints the running command's and ends it.

    Raises:
      UserError: every fault in it, and fields that no config of the stage has.
    """
    if any(argument in HELP for argument in argv[1:]):
        print(help_text())
        sys.exit(0)
    make_configs_importable()
    argv = [_located(argument, before) for before, argument in zip(["", *argv], argv)]
    try:
        rest = flags.FLAGS(argv)[1:]
        if CONFIG.value is not None:
            _ = CONFIG.value.stage  # a config file that could not be read says so only here
    except _FAULTS as error:
        _refuse_unknown(argv)
        raise UserError(error) from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}")
    require(*needed)
    if CONFIG.value is not None:
        check_fields(CONFIG.value)
        follow(CONFIG.value, {match[1] for argument in argv if (match := re.match(r"--?config\.(\w+)(=|$)", argument))})


def require(*names: str) -> None:
    """Refuse a command line that has been read without these flags.

    Raises:
      UserError: naming the first.
    """
    for name in names:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing; see --help")


def config_file() -> str:
    """The config's file and argument, as they were read."""
    return config_flags.get_config_filename(flags.FLAGS["config"])


def help_text() -> str:
    """The running command's documentation, its own flags, and how fields of the config are set."""
    main = sys.modules["__main__"]
    own = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    lines = [inspect.cleandoc(main.__doc__ or ""), "", "flags:"]
    for flag in (flags.FLAGS["config"], *own.values()):
        kind = flag.flag_type()
        value = "FILE.py[:ARGUMENT]" if flag.name == "config" else {"bool": "", "int": "N"}.get(kind, flag.name.upper())
        lines.append(f"  --{flag.name} {value}".rstrip())
        lines += textwrap.wrap(flag.help, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join([*lines, "", _OVERRIDES])


_OVERRIDES = """\
fields of the config:
  --config.FIELD=VALUE
        Of any field, by its dotted name: --config.steps=200 --config.tokenizer.encoder.layers=6
        Tuples with quotes, --config.data.tasks="('hmc', 'tuev')"; nothing is "". Its type has to be the field's own.
  'neurolm train --config FILE.py[:ARGUMENT] --print' lists all fields, what they are now, and what they mean."""


def located(name: str, option: str = "--config", folder: str = "configs") -> str:
    """FILE[:ARGUMENT] with the file where it is: as it is named or, failing that, among this project's own.

    Raises:
      UserError: it is in neither place; names the ``option``, and the project's own files in ``folder``.
    """
    file, colon, rest = name.partition(":")
    ours = folder_of_configs() / file
    if pathlib.Path(file).is_file():
        return name
    if not ours.is_file():
        files = sorted((folder_of_configs() / folder).glob("*.py"))
        there = ", ".join(f"{folder}/{path.name}" for path in files if "def get_config" in path.read_text())
        raise UserError(f"{option} {file}: no such file; the project's own are {there}")
    return f"{ours}{colon}{rest}"


def _located(argument, before):
    """An argument of a command line, its config file where it is if it names one."""
    match = re.match(r"(--?config=)(.+)", argument)
    if not match and before not in ("-config", "--config"):
        return argument
    option, name = match.groups() if match else ("", argument)
    return f"{option}{located(name)}"


def _refuse_unknown(argv):
    """Name the first override of a field that the config does not have, if there is one."""
    parser, file = config_flags.config_flags.ConfigFileFlagParser("config"), None
    for before, argument in zip(["", *argv], argv):
        if match := re.match(r"--?config=(.+)", argument):
            file = match[1]
        elif before in ("-config", "--config"):
            file = argument
    try:
        names = [name for name, _ in flat(parser.parse(file))] if file else []
    except _FAULTS:
        return
    sections = {name.rsplit(".", i)[0] for name in names for i in range(1, name.count(".") + 1)}
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and names and match[1] not in names and match[1] not in sections:
            name = re.sub(r"\[.*", "", match[1])
            if name not in names:
                hint = did_you_mean(name, names, "config.") or "; --print lists those that there are"
                raise UserError(f"config.{name}: no such field{hint}")
