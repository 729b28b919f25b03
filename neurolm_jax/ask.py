"""Ask a trained model about a recording.

  python -m neurolm_jax.ask RECORDING --checkpoint W --question "Is this EEG segment abnormal?"
                            [--every S] [--window S] [--mains 50|60] [--rename FILE] [--json] [--plot FILE]
                            [--annotations FILE] [--reader_options NAME=VALUE ...]

RECORDING is any file that MNE reads, whose channels are known electrodes. The question, or the name, of a task that W
was trained on has its allowed answers scored, window by window and for the whole recording; any other question is
answered in free text. --plot draws probability over time above the trace (.png, .pdf, .svg); --annotations writes the
answers for MNE (.txt, -annot.fif) or for EDFbrowser and other viewers (.edf, an EDF+ file of annotations). --rename
names a file that tells electrodes where channels have other names: lines of NAME,ELECTRODE.
Without --question it lists what W was taught. No medical device: for research, not for diagnosis or treatment.
"""

import dataclasses
import json
import os
import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape


def main() -> None:
    parser = argument_parser("ask", __doc__)
    parser.add_argument("recording", type=pathlib.Path, nargs="?")
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="workdir of an instruct stage")
    parser.add_argument("--question", help="in words, or the name of a task")
    parser.add_argument("--every", type=float, metavar="S", help="seconds from window to window; default: no overlap")
    parser.add_argument("--window", type=int, metavar="S", help="seconds of a window, for a question of your own")
    parser.add_argument("--mains", type=float, choices=(50, 60), help="Hz; by default of the header or the spectrum")
    parser.add_argument("--rename", type=pathlib.Path, metavar="FILE", help="lines of NAME,ELECTRODE, for channels")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--trust_code", action="store_true", help="run the task files (.py) that the checkpoint names")
    parser.add_argument(
        "--reader_options",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="of MNE's reader, such as data_format=int32 for .cnt",
    )
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--annotations", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()

    from neurolm_jax.reporting import answers as reporting

    # What can be refused is refused before a model is loaded.
    if arguments.question and not arguments.recording:
        raise UserError("a recording is missing; see 'python -m neurolm_jax.ask --help'")
    if arguments.recording and not os.path.lexists(arguments.recording):
        raise UserError(f"{arguments.recording}: no such file")
    for file in (arguments.plot, arguments.annotations):
        if file and not file.parent.is_dir():
            raise UserError(f"{file}: its folder does not exist")
    if arguments.plot:
        reporting.check_figure(arguments.plot)
    if arguments.annotations:
        reporting.check_annotations(arguments.annotations)

    from neurolm_jax.eeg.opening import parse_options
    from neurolm_jax.eeg.reading import warnings_by_kind
    from neurolm_jax.eeg.renaming import read_renaming, rename
    from neurolm_jax.eeg.tasks.readers import read_raw
    from neurolm_jax.inference.asking import Answerer
    from neurolm_jax.inference.own_recordings import warning_notes

    renaming = read_renaming(arguments.rename) if arguments.rename else {}
    options = parse_options(arguments.reader_options) if arguments.reader_options else {}
    given: dict[str, int] = {}
    with warnings_by_kind(given):
        raw = read_raw(arguments.recording, **options) if arguments.recording else None
    if raw and renaming:
        if not set(renaming) & set(raw.ch_names):
            names = ", ".join(raw.ch_names[:8])
            raise UserError(f"--rename {arguments.rename}: has none of the recording's channels ({names} ...)")
        raw = rename(raw, renaming, str(arguments.recording))
    model = Answerer(arguments.checkpoint, arguments.trust_code)
    if not arguments.question:
        for name, question in model.questions.items():
            print(escape(f"{name:<10} {question}"))
        return
    wanted = {"every": arguments.every, "window": arguments.window, "mains": arguments.mains}
    found = model.ask(raw, arguments.question, name=escape(str(arguments.recording)), **wanted)
    found = dataclasses.replace(found, notes=(*found.notes, *warning_notes(given)))
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        reporting.print_answers(found)
    if arguments.plot:
        reporting.write_figure(found, raw, arguments.plot)
    if arguments.annotations:
        reporting.write_annotations(found, arguments.annotations)


if __name__ == "__main__":
    run(main, computes=True)
