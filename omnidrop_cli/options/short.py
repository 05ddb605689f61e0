"""What `--help` shows of a command with many options; `--help-all` shows the rest.

Ten options or so that people need, each in one line of an 80-column screen. An argument is named
by its metavar where the usage line does not explain it.
"""

from __future__ import annotations

_BUDGET = "Share of tokens kept, like 0.3 or 30%."
_BUDGETS = "Shares of tokens kept, like .5,.2 or 50%,20%."
_METHOD = "A method that `omnidrop models` lists."
_MODEL = "Hub name, folder or alias."
_START, _END = "Start of the part to use, like 75 or 1:15.", "End of that part."
_FPS = "Frames sampled per second (2)."
_PIXELS = "Most pixels per frame; fewer take less time."
_JSON = "One JSON document on stdout."

#: Texts by option, in the order shown, by command.
SHORT: dict[str, dict[str, str]] = {
    "ask": {
        "--question": "A question; repeatable.",
        "--choices": "Pick one of these.",
        "--start": _START,
        "--end": _END,
        "--budget": _BUDGET,
        "--model": _MODEL,
        "--report": "How much of a report to show.",
        "--save": "Write FILE.html, .json, .svg or .txt; repeatable.",
        "--json": _JSON,
        "--quiet": "No report, progress or notices.",
    },
    "chat": {
        "--choices": "Pick one of these in every answer.",
        "--start": _START,
        "--end": _END,
        "--budget": _BUDGET,
        "--method": _METHOD,
        "--model": _MODEL,
        "--alone": "Ask each question on its own.",
        "--no-history": "Keep no history of what is typed.",
        "--save": "Write the conversation at the end.",
        "--jsonl": "One line of JSON per answer on stdout.",
        "--quiet": "No report, progress or notices.",
    },
    "profile": {
        "--budget": _BUDGETS,
        "--method": "Methods to measure, like omnidrop,fastv.",
        "--sweep": "Measure five budgets.",
        "--start": _START,
        "--end": _END,
        "--repeats": "Timed rounds (5).",
        "--model": _MODEL,
        "--save": "Write FILE.html, .json, .txt, .png or .svg; repeatable.",
        "--overlay": "Write the clip with dropped patches dimmed.",
        "--dry-run": "Estimate only.",
        "--json": _JSON,
    },
    "estimate": {
        "--budget": _BUDGETS,
        "--method": "Methods to estimate, like omnidrop,fastv.",
        "--start": _START,
        "--end": _END,
        "--fps": _FPS,
        "--max-pixels": _PIXELS,
        "--model": _MODEL,
        "--4bit": "Quantise the language model to 4 bits.",
        "--tflops": "Speed of the machine; by default this one is timed.",
        "--json": _JSON,
    },
    "eval": {
        "SET": "FILE.jsonl, avsynth, or a benchmark as FORMAT:FOLDER.",
        "--out": "Folder of the results; a stopped call goes on there.",
        "--method": "Methods to compare, like omnidrop,random; or all.",
        "--budget": _BUDGETS,
        "--videos": "Folder of the set's clips.",
        "--limit": "Take the first N questions.",
        "--score": "text reads the reply, logits the likeliest choice.",
        "--model": _MODEL,
        "--preset": "Settings from `omnidrop calibrate`; repeatable.",
        "--summary": "Summarise folders of results; ask nothing.",
        "--json": _JSON,
    },
    "calibrate": {
        "SET": "FILE.jsonl, avsynth, or a benchmark as FORMAT:FOLDER.",
        "--out": "The preset; a stopped call goes on.",
        "--method": "The method to calibrate (omnidrop).",
        "--budget": _BUDGETS,
        "--try": "Values to try for a setting; repeatable.",
        "--only": "Try nothing but what --try names.",
        "--videos": "Folder of the set's clips.",
        "--limit": "Take the first N questions.",
        "--model": _MODEL,
        "--dry-run": "Show what would be tried; ask nothing.",
        "--force": "Replace a preset.",
    },
    "batch": {
        "SOURCE": "A file of questions; --help-all names its columns.",
        "--question": "Asked of clips, folders and globs; repeatable.",
        "--out": "Answers are added to this JSONL file; - is stdout.",
        "--copy": "Also a table at the end: FILE.csv or .parquet.",
        "--retry": "Ask rows again that failed, up to N times.",
        "--timeout": "Most time for a row, like 60s.",
        "--limit": "Take the first N rows only.",
        "--shard": "Only a part of the clips, like 1/4.",
        "--choices": "Pick one of these, where a row has none of its own.",
        "--budget": _BUDGET,
        "--method": _METHOD,
        "--model": _MODEL,
        "--4bit": "Quantise the language model to 4 bits.",
        "--fps": _FPS,
        "--max-pixels": _PIXELS,
        "--quiet": "No progress and no summary.",
    },
    "report": {
        "--where": "Only rows with this, like seconds>3; repeatable.",
        "--failed": "Only rows that failed.",
        "--clip": "Only rows whose clip is like this, with * and ?.",
        "--question": "Only rows with this in the question.",
        "--slowest": "List the N slowest rows.",
        "--least-sure": "List the N answers of the lowest probability.",
        "--sort": "List rows by a value; backwards: --sort=-NAME.",
        "--save": "Write FILE.html, whose rows can be searched.",
        "--pages": "Write a page for each clip, and link to it.",
        "--json": _JSON,
    },
    "serve": {
        "--keep-alive": "Drop the model when idle for this time, like 5m.",
        "--http": "Answer over HTTP at HOST:PORT as well.",
        "--status": "Say what is being served, and end.",
        "--stop": "End the process that serves.",
        "--model": _MODEL,
        "--device": "auto, cpu, cuda, cuda:1, mps.",
        "--dtype": "auto, float32, bfloat16 or float16.",
        "--4bit": "Quantise the language model to 4 bits.",
        "--quiet": "Say nothing but errors.",
    },
    "chunks": {
        "--out": "Folder to write; made if new.",
        "--start": _START,
        "--end": _END,
        "--fps": _FPS,
        "--max-pixels": _PIXELS,
        "--no-audio": "Ignore the audio.",
        "--no-video": "Ignore the video.",
        "--quiet": "No notices.",
    },
    "train-a2v": {
        "--out": "The predictor goes here.",
        "--model": _MODEL,
        "--recursive": "Of a folder, take those below it too.",
        "--steps": "Steps of training (1000).",
        "--held-out": "Share of the clips held out (0.2).",
        "--max-pixels": _PIXELS,
        "--force": "Replace a predictor in that folder.",
        "--json": _JSON,
        "--quiet": "No progress.",
    },
}
