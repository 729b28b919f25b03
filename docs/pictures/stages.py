"""Draws docs/pictures/stages.svg, the three stages in one picture.

  python docs/pictures/stages.py [FILE.svg]

Plain SVG: boxes, arrows and words in the fonts of the reader's browser. The traces are sums of sines, drawn to look
like EEG and to mean nothing.
"""

import html
import math
import pathlib
import sys

FILE = pathlib.Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 1200, 590
INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
TRACES = ("#3b6fb6", "#2a9d8f", "#e07a3f")  # a colour for each channel, and for its codes
PANEL, FROZEN, WORDS = "#f3f5f9", "#e3e8f1", "#7a4fa3"
CODES = ((12, 47, 47, 5), (88, 31, 9, 9), (63, 63, 21, 70))  # of each channel's seconds
PITCH = 46  # pixels of a second


def draw() -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="15" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>NeuroLM's three stages</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{FAINT}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        *_tokenizer(16),
        *_pretrain(412),
        *_instruct(808),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _tokenizer(x):
    """Stage 1, from below: EEG, encoder, codes, decoders."""
    middle = x + 188
    yield from _panel(x, "1  Tokenizer", "a code for each second of a channel")
    yield from _eeg(x + 88, 452, seconds=4)
    yield _arrow(middle, 444, middle, 412)
    yield from _box(x + 28, 362, 320, 46, "encoder", "sees its own and earlier seconds")
    yield _arrow(middle, 358, middle, 334)
    yield from _codes(x + 102, 232)
    yield _text(x + 46, 280, "codes", FAINT, size=13)
    yield _arrow(middle - 60, 226, middle - 88, 196)
    yield _arrow(middle + 60, 226, middle + 88, 196)
    yield from _box(x + 28, 150, 152, 42, "decoder", "of the signal")
    yield from _box(x + 196, 150, 152, 42, "decoder", "of the spectrum")
    yield _path(_wave(0, x + 40, 122, 128), TRACES[0])
    yield from _spectrum(x + 208, 134)
    yield _text(middle, 572, "features are hard to tell from words' embeddings", FAINT, size=13)


def _pretrain(x):
    """Stage 2, from below: features and text, GPT-2, the next second's codes and the next words."""
    yield from _panel(x, "2  Pretrain", "every channel's next second, beside text")
    yield from _eeg(x + 22, 452, seconds=4)
    yield _arrow(x + 122, 444, x + 122, 412)
    yield from _box(x + 22, 362, 200, 46, "encoder", "frozen", FROZEN)
    yield _arrow(x + 122, 358, x + 122, 334)
    yield from _box(x + 22, 284, 332, 46, "GPT-2", "sees all channels up to this second")
    yield _arrow(x + 122, 280, x + 122, 250)
    yield from _codes(x + 36, 148, shift=1)
    yield _text(x + 122, 126, "codes of the next second", FAINT, size=13)
    yield from _words(x + 288, 478, ("the", "brain", "is"))
    yield _arrow(x + 288, 444, x + 288, 334)
    yield _arrow(x + 288, 280, x + 288, 250)
    yield from _words(x + 288, 176, ("brain", "is", "never"))
    yield _text(x + 288, 126, "next word", FAINT, size=13)


def _instruct(x):
    """Stage 3, from below: features and a question, GPT-2, an answer with its probability."""
    yield from _panel(x, "3  Instruct", "questions about EEG, answered in words")
    yield from _eeg(x + 22, 452, seconds=3)
    yield _arrow(x + 96, 444, x + 96, 412)
    yield from _box(x + 22, 362, 148, 46, "encoder", "frozen", FROZEN)
    yield _arrow(x + 96, 358, x + 96, 334)
    yield from _box(x + 22, 284, 332, 46, "GPT-2", "the same model for all tasks")
    yield from _words(x + 268, 478, ("Question: Is this", "EEG segment", "abnormal? Answer:"), width=146)
    yield _arrow(x + 268, 444, x + 268, 334)
    yield _arrow(x + 188, 280, x + 188, 250)
    for i, (answer, probability) in enumerate((("Yes", 0.83), ("No", 0.17))):
        y = 168 + 42 * i
        yield _text(x + 82, y + 19, answer, WORDS, anchor="end", weight="bold")
        yield _rect(x + 94, y, 180, 26, PAPER, stroke="#d4cbe3")
        yield _rect(x + 94, y, 180 * probability, 26, WORDS)
        yield _text(x + 284, y + 19, f"{probability:.2f}", INK, anchor="start")
    yield _text(x + 188, 126, "a probability for every allowed answer", FAINT, size=13)


def _panel(x, title, subtitle):
    yield _rect(x, 16, 376, 566, PANEL, radius=14)
    yield _text(x + 20, 50, title, INK, size=22, anchor="start", weight="bold")
    yield _text(x + 20, 74, subtitle, FAINT, anchor="start")


def _eeg(x, y, seconds):
    """Traces of three channels, cut into seconds."""
    width = seconds * PITCH + 16
    yield _rect(x, y, width, 98, PAPER)
    for i, colour in enumerate(TRACES):
        yield _path(_wave(i, x + 8, width - 16, y + 20 + 29 * i), colour)
    for second in range(1, seconds):
        line = x + 8 + second * PITCH
        yield f'<path d="M{line} {y + 4} V{y + 94}" stroke="#c3cad6" stroke-dasharray="3 3"/>'


def _codes(x, y, shift=0):
    """A box for each channel and second; with ``shift`` the first second, which nothing predicts, is missing."""
    for i, (colour, row) in enumerate(zip(TRACES, CODES)):
        for j, code in enumerate(row[shift:]):
            left = x + j * 44 + shift * 22
            yield _rect(left, y + 34 * i, 40, 28, colour, radius=5)
            yield _text(left + 20, y + 34 * i + 19, str(code), PAPER, size=14)


def _words(x, y, lines, width=92):
    for i, line in enumerate(lines):
        yield _rect(x - width / 2, y + 25 * i - 20, width, 22, PAPER, radius=5)
        yield _text(x, y + 25 * i - 4, line, WORDS, size=14)


def _spectrum(x, y):
    heights = (30, 24, 19, 14, 21, 27, 16, 10, 8, 6, 5, 4, 4)
    for i, height in enumerate(heights):
        yield _rect(x + 10 * i, y - height, 7, height, TRACES[0], radius=1)


def _box(x, y, width, height, title, subtitle, fill="#dbe7f6"):
    yield _rect(x, y, width, height, fill, radius=8)
    yield _text(x + width / 2, y + height / 2 - 2, title, INK, weight="bold")
    yield _text(x + width / 2, y + height / 2 + 15, subtitle, FAINT, size=13)


def _wave(channel, x, width, y):
    """Points of a trace about the height y."""
    rhythms = ((0.31, 4.0, 0.2), (0.83, 3.0, 1.1), (1.37, 2.2, 2.3), (0.11, 3.2, 0.7))

    def height(t):
        return sum(size * math.sin(rate * (1 + 0.17 * channel) * t + begin + channel) for rate, size, begin in rhythms)

    return [(x + t, y + height(t)) for t in range(int(width) + 1)]


def _path(points, colour):
    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _arrow(x, y, to_x, to_y):
    return f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{FAINT}" stroke-width="1.8" marker-end="url(#head)"/>'


def _rect(x, y, width, height, fill, radius=4, stroke="none"):
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}" '
        f'stroke="{stroke}"/>'
    )


def _text(x, y, text, colour, size=15, anchor="middle", weight="normal"):
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{html.escape(text, quote=False)}</text>'
    )


if __name__ == "__main__":
    (pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(draw())
