"""Tables of benchmarks/tts.py: a line for each system, of its JSON."""

from melglow_plugin.evaluation.evaluate import summarise

RECOGNISERS = {"sphinx": "WER, pocketsphinx", "whisper": "WER, Whisper tiny.en"}
SHOWN = {
    "distill_mos": "Distill-MOS", "dnsmos": "DNSMOS", "pesq": "PESQ", "mcd": "MCD, dB", "f0_median": "F0 median, Hz",
    "f0_spread": "F0 spread, semitones", "voiced": "voiced, %", "mel_l1": "mel error, nats",
}  # fmt: skip
Rows = dict[str, dict[str, dict]]  # system -> sentence -> scores


def wer(clips: dict[str, dict], recogniser: str) -> str:
    """Word error rate of all sentences together in percent; empty unless it heard every one."""
    counts = [row[f"{recogniser}_errors"] for row in clips.values() if f"{recogniser}_errors" in row]
    return f"{100 * sum(counts) / sum(row['words'] for row in clips.values()):.1f}" if len(counts) == len(clips) else ""


def table(rows: Rows) -> str:
    """The recordings, then the systems by name: word error rates, means with half of their 95 % intervals of the rest.

    A score that no system has gets no column.
    """
    names = sorted((name for name in rows if rows[name]), key=lambda name: (name != "recordings", name))
    means = {name: summarise({key: row[key] for key in SHOWN if key in row} for row in rows[name].values())
             for name in names}  # fmt: skip
    columns: dict[str, list[str]] = {"sentences": [str(len(rows[name])) for name in names]}
    for recogniser, label in RECOGNISERS.items():
        columns[f"{label}, %"] = [wer(rows[name], recogniser) for name in names]
    for key, label in SHOWN.items():
        found = [means[name].get(key) for name in names]
        columns[label] = [f"{mean['mean']:.3g} ± {mean['high'] - mean['mean']:.2g}" if mean else "" for mean in found]
    columns = {label: cells for label, cells in columns.items() if any(cells)}
    lines = ["| system | " + " | ".join(columns) + " |", "|" + " --- |" * (1 + len(columns))]
    for number, name in enumerate(names):
        lines.append(f"| {name} | " + " | ".join(cells[number] for cells in columns.values()) + " |")
    return "\n".join(lines) + "\n"
