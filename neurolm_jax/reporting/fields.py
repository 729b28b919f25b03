"""A config as YAML, each field with its documentation: the comment behind it, or above it, where it stands."""

import ast
import inspect
import io
import json
import pathlib
import textwrap
import tokenize
from typing import Any

from ml_collections import ConfigDict

from neurolm_jax import configuration
from neurolm_jax.command import folder_of_configs
from neurolm_jax.models import config as models

SECTIONS = {  # of a config, whose fields are those of a dataclass
    "tokenizer.encoder": models.EncoderConfig,
    "tokenizer": models.TokenizerConfig,
    "language": models.LanguageModelConfig,
    "summary": models.SummaryConfig,
}
WIDTH, COLUMN = 120, 32  # of lines, and where comments begin that fit behind a field


def documentation(stage: str, file: str | pathlib.Path | None = None) -> dict[str, str]:
    """Dotted name -> comment, of the fields and sections of a stage, and what a config ``file`` says of them itself."""
    found = comments(inspect.getsource(configuration.base))
    for section, kind in SECTIONS.items():
        found |= {f"{section}.{name}": text for name, text in comments(inspect.getsource(kind)).items()}
    for source in (folder_of_configs() / "configs" / f"{stage}.py", file):
        if source is not None:
            found |= comments(pathlib.Path(source).read_text())
    return found


def comments(source: str) -> dict[str, str]:
    """Of assignments to ``c.NAME...`` and of a class's annotated fields: the name, without ``c``, and the comment."""
    comment, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            comment[line] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(line)
    found = {}
    for node in ast.walk(ast.parse(source)):
        name = _name(node)
        if name is None:
            continue
        if node.end_lineno in comment:
            found[name] = comment[node.end_lineno]
        elif node.lineno - 1 in alone:
            first = node.lineno - 1
            while first - 1 in alone:
                first -= 1
            found[name] = " ".join(comment[line] for line in range(first, node.lineno))
    return found


def _name(node) -> str | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
        return None
    root, _, name = ast.unparse(node.targets[0]).partition(".")
    return name if root == "c" else None


def to_yaml(config: ConfigDict, documented: dict[str, str]) -> str:
    """YAML of a config; tuples are lists there."""
    lines = _lines(config, documented, "")
    return "\n".join(lines) + "\n"


def _lines(config, documented, prefix):
    indent, lines = "  " * prefix.count("."), []
    for name, value in config.items():
        section, comment = isinstance(value, ConfigDict), documented.get(prefix + name, "")
        line = f"{indent}{name}:" + ("" if section and len(value) else f" {_scalar(value)}")
        if comment and max(len(line), COLUMN) + len(comment) + 4 <= WIDTH:
            line = f"{line:<{COLUMN}}  # {comment}"
        else:
            lines += textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines.append(line)
        if section:
            lines += _lines(value, documented, f"{prefix}{name}.")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, ConfigDict):
        return "{}"
    if isinstance(value, float):  # YAML's have a point
        mantissa, e, exponent = repr(value).partition("e")
        return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_scalar, value))}]"
    return json.dumps(value, ensure_ascii=False)  # as YAML has it too
