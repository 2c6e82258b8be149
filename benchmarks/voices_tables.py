"""Markdown tables of the scores that ``voices.py`` keeps: all clips, differences, by sex and language, each speaker."""

from collections.abc import Callable, Collection, Iterable, Mapping

from melglow_plugin.evaluation.evaluate import SCORES, summarise

BRIEF = {"pesq": 2, "vuv_error": 0, "distill_mos": 2}
COLUMNS = {"pesq": 3, "estoi": 3, "mcd_dtw": 2, "vuv_error": 1, "mel_l1": 3, "distill_mos": 3}  # score -> decimals


def tables(
    data: Mapping, systems: Iterable[str], clips: Collection[str], against: str = "", groups: bool = True
) -> str:
    """All tables of ``clips`` that have been scored.

    Args:
        data: the JSON: ``clips`` (key -> speaker, sex, language), ``systems`` (name -> ``scores``: key -> score).
        systems: in the order of the rows.
        against: the system whose scores are subtracted, clip by clip; left out where it was not scored.
        groups: by sex, language and speaker, too.
    """
    rows = {
        name: {key: values for key, values in data["systems"].get(name, {}).get("scores", {}).items() if key in clips}
        for name in systems
    }
    rows = {name: each for name, each in rows.items() if each}
    facts = data["clips"]
    parts = [_section("All", rows)]
    if against in rows and len(rows) > 1:
        parts.append(_differences(rows, against))
    if not groups:
        return "\n".join(parts)
    for title, field in (("Sex", "sex"), ("Language", "language")):
        groups = sorted({facts[key][field] for each in rows.values() for key in each} - {""})
        if len(groups) > 1:
            parts += [_section(f"{title}: {g}", rows, lambda key, g=g, f=field: facts[key][f] == g) for g in groups]
    if len({facts[key]["speaker"] for each in rows.values() for key in each}) > 1:
        parts.append(_speakers(rows, facts))
    return "\n".join(parts)


def _speakers(rows: Mapping[str, Mapping], facts: Mapping[str, Mapping]) -> str:
    """A row a speaker: means of each system's ``BRIEF`` scores."""
    members: dict[str, list[str]] = {}
    for key in sorted({key for each in rows.values() for key in each}):
        members.setdefault(facts[key]["speaker"], []).append(key)
    lines = []
    for speaker, keys in members.items():
        cells = []
        for scored in rows.values():
            summary = summarise(_finite(scored[key]) for key in keys if key in scored)
            found = [f"{summary[name]['mean']:.{digits}f}" for name, digits in BRIEF.items() if name in summary]
            cells.append(" / ".join(found))
        about = [speaker, facts[keys[0]]["sex"], facts[keys[0]]["language"], str(len(keys))]
        lines.append(f"| {' | '.join([*about, *cells])} |")
    labels = " / ".join(SCORES[name].label for name in BRIEF)
    head = f"| speaker | sex | language | clips | {' | '.join(rows)} |\n|{' --- |' * (len(rows) + 4)}\n"
    return f"#### Each speaker: {labels}\n\n{head}" + "\n".join(lines) + "\n"


def _section(title: str, rows: Mapping[str, Mapping], chosen: Callable[[str], bool] = lambda key: True) -> str:
    lines = []
    for system, scored in rows.items():
        summary = summarise(_finite(values) for key, values in scored.items() if chosen(key))
        cells = [_cell(summary.get(name), digits) for name, digits in COLUMNS.items()]
        if summary["utterances"]:
            lines.append(f"| {system} | {summary['utterances']} | {' | '.join(cells)} |")
    head = " | ".join(f"{SCORES[name].label}{' (%)' if name == 'vuv_error' else ''}" for name in COLUMNS)
    return f"#### {title}\n\n| system | clips | {head} |\n|{' --- |' * (len(COLUMNS) + 2)}\n" + "\n".join(lines) + "\n"


def _finite(values: Mapping) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _cell(entry: Mapping | None, digits: int) -> str:
    if entry is None or not entry["n"]:
        return ""
    half = f" ± {entry['high'] - entry['mean']:.{digits}f}" if entry["n"] > 2 else ""
    return f"{entry['mean']:.{digits}f}{half}"


def _differences(rows: Mapping[str, Mapping], against: str) -> str:
    """Mean of the clips' differences with its interval, and how many clips are better."""
    lines = []
    for system, scored in rows.items():
        common = sorted(set(scored) & set(rows[against]))
        pairs = [(_finite(scored[key]), _finite(rows[against][key])) for key in common]
        deltas = [{name: mine[name] - its[name] for name in mine.keys() & its.keys()} for mine, its in pairs]
        if system == against or not common:
            continue
        summary, cells = summarise(deltas), []
        for name, digits in COLUMNS.items():
            sign = -1 if SCORES[name].better == "lower" else 1
            better = sum(sign * each[name] > 0 for each in deltas if name in each)
            entry = summary.get(name)
            cells.append(f"{_cell(entry, digits)} ({better} of {entry['n']})" if entry else "")
        lines.append(f"| {system} | {len(common)} | {' | '.join(cells)} |")
    head = " | ".join(SCORES[name].label for name in COLUMNS)
    title = f"#### Differences from {against}, clip by clip (clips that are better)"
    return f"{title}\n\n| system | clips | {head} |\n|{' --- |' * (len(COLUMNS) + 2)}\n" + "\n".join(lines) + "\n"
