"""The page: what is said, the pictures, the tables, telemetry, the settings."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from intnet import files
from intnet.report import _tables
from intnet.report._values import inline, setting

CONFIG, TELEMETRY = "config.json", "telemetry"
CAPTIONS = {
    "cliffs.png": "Accuracy, and what rounding did to updates, over fraction bits and learning rate, with both cliffs",
    "surface.png": "Accuracy over learning rate and fraction bits",
    "sweep.png": "Test accuracy over the axes of the sweep",
    "sweep-telemetry.png": "Along each axis: what was lost to rounding, what did not fit, the bits that were used",
    "advice.png": "Test accuracy against the word length of each role, the advised recipe and its neighbours",
    "training.png": "Loss and accuracies, epoch by epoch",
    "telemetry.png": "Every tensor: the bits of its word that it used, what did not fit, what was lost to rounding",
    "linear.png": "The descents, step by step",
    "linear-bits.png": "The loss, step by step, for every width of words",
    "logistic.png": "Gradient, loss and errors against the fraction bits of the weights: the last weights and their average",
    "curves.png": "Test error and training loss, epoch by epoch: the weights as they are trained, and their average",
    "convex.png": "Distance to the optimum, iteration by iteration",
    "digits.png": "Norm of the gradient, iteration by iteration",
    "loss-by-period.png": "Training loss, a line a time between two full gradients",
    "accuracy-by-period.png": "Test accuracy, a line a time between two full gradients",
    "loss-by-bits.png": "Training loss, a line a number of bits",
    "accuracy-by-bits.png": "Test accuracy, a line a number of bits",
    "rosenbrock.png": "The Rosenbrock function, step by step",
    "cosine.png": "Cosine between each estimator and coordinate differences, layer by layer",
    "best.png": "The best mean decrease of the loss against the dimension",
    "decrease.png": "The mean decrease of the loss against the rate, before training",
    "decrease-trained.png": "The mean decrease of the loss against the rate, after training",
    "stochastic_rounding.png": "The best loss after one step against the number of gradients averaged",
    "thin_resnet.png": "The mean decrease of the loss against the rate, convolution by convolution",
    "pruning.png": "Test accuracy against what is pruned, and epoch by epoch of fine-tuning",
    "sparsity.png": "The share of zeros, layer by layer",
    "quantization.png": "Test accuracy against the bits of the weights",
}
"""What pictures show, in the order in which they stand; any other picture comes after these, under its name."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HERE = Path(__file__).parent


class _Section(NamedTuple):
    """A part of the page, if there is anything in it."""

    title: str
    parts: list[str]


def write_report(folder: Path | str, *, title: str, sentences: Sequence[str]) -> None:
    """Write ``report.html`` into a folder of results, unless it is there and says the same.

    Shown are, of the files on top of the folder: ``config.json``, every ``.png`` and every ``.csv``. Of a long table 2,000 rows
    are shown, and the page says where the others are.

    Parameters
    ----------
    folder : path
        Of results. Nobody else should write into it meanwhile.
    title : str
        The study, what was trained and on what.
    sentences : sequence of str
        What came out. A sentence may have several lines: those that are indented stand under the one before them, and those of
        a table in Markdown become one.

    Raises
    ------
    StudyError
        If a file cannot be read, or the report cannot be written.
    """
    folder = Path(folder)
    with files.explained(folder):
        shown = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_file())
        pictures = sorted((path for path in shown if path.suffix == ".png"), key=_place)
        tables = [path for path in shown if path.suffix == ".csv"]
        sections = (
            _Section("Findings", _findings(sentences)),
            _Section("Pictures", [_picture(path) for path in pictures if path.stem != TELEMETRY]),
            _Section("Tables", [_tables.of_file(path) for path in tables if path.stem != TELEMETRY]),
            _Section(
                "Telemetry",
                [_picture(path) for path in pictures if path.stem == TELEMETRY]
                + [_tables.of_file(path, last=True) for path in tables if path.stem == TELEMETRY],
            ),
            _Section("Settings", [_settings(path) for path in shown if path.name == CONFIG]),
        )
        files.write_changed(folder / files.REPORT, _page(title, [one for one in sections if one.parts]).encode())


def _place(path: Path) -> tuple[int, str]:
    known = list(CAPTIONS)
    return known.index(path.name) if path.name in known else len(known), path.name


def _findings(sentences: Iterable[str]) -> list[str]:
    """Return paragraphs, lists of what is indented, and tables."""
    parts = []
    lines = [line for sentence in sentences for line in sentence.splitlines() if line.strip()]
    for kind, group in groupby(lines, lambda line: "|" if line.startswith("|") else " " if line[0].isspace() else ""):
        some = list(group)
        if kind == "|" and _tables.is_markdown(some):
            parts.append(_tables.of_markdown(some))
        elif kind == " ":
            parts.append(f"<ul>{''.join(f'<li>{inline(line.strip())}</li>' for line in some)}</ul>")
        else:
            parts.extend(f"<p>{inline(line)}</p>" for line in some)
    return parts


def _picture(path: Path) -> str:
    content, name = path.read_bytes(), escape(path.name)
    if content[: len(_SIGNATURE)] != _SIGNATURE or len(content) < 24:
        return f'<p class="note"><code>{name}</code> is no picture that can be shown.</p>'
    width, height = struct.unpack(">II", content[16:24])  # so that the page does not jump when pictures appear
    caption = escape(CAPTIONS.get(path.name, path.stem.replace("-", " ").replace("_", " ")))
    tall = ' class="tall"' if height > 1.2 * width else ""
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img{tall} alt="{caption}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption} <code>{name}</code></figcaption></figure>"
    )


def _settings(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f'<p class="note"><code>{CONFIG}</code> is damaged, so the settings are not shown: {escape(str(error))}.</p>'
    return f'<div class="settings">{setting(found)}</div>'


def _page(title: str, sections: Sequence[_Section]) -> str:
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {_hashed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<a href="#{one.title.lower()}">{one.title}</a>' for one in sections)
    body = "\n".join(
        f'<section id="{title.lower()}">\n<h2>{title}</h2>\n{chr(10).join(parts)}\n</section>' for title, parts in sections
    )
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{inline(title)}</h1>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _hashed(text: str) -> str:
    """Return what the policy lets in: this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
