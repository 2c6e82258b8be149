"""What a run of gpu.py decides: each question with what was found, what is wanted, and what follows if it is not so."""

LIMIT = 1e-4  # of the wav's error against the CPU
LAUNCHES = 150  # of one call
ONE_SECOND, TEN_SECONDS, BATCH = 1.0, 1.75, 10_000  # milliseconds of an utterance; times real time of 16 of them
MARGIN = 1.03  # times as fast a mode of less precision has to be, at every size
WRONG = "use_fused(False) is the default until `pytest tests -k triton` there has found the kernel"
SLOW = "the tables of launches and of distances say whether the host or the kernels"


def verdicts(result: dict) -> list[dict]:
    """One entry a question, of those whose tables were filled: question, found, wanted, ok, otherwise."""
    times = {(row["system"], row["batch"], row["seconds"]): row["median"] for row in result.get("speeds", [])}
    answers: list[dict] = []

    def at_most(question: str, found: float | None, limit: float, otherwise: str) -> None:
        _add(answers, question, found, f"<= {limit:g}", found is not None and found <= limit, otherwise)

    def at_least(question: str, found: float | None, limit: float, otherwise: str) -> None:
        _add(answers, question, found, f">= {limit:g}", found is not None and found >= limit, otherwise)

    for name in ("fused", "graphs"):
        at_most(
            f"largest error of the wav, {name}", result.get("wav_errors", {}).get(name, {}).get("max"), LIMIT, WRONG
        )
    for seconds, limit in ((1, ONE_SECOND), (10, TEN_SECONDS)):
        found = times.get(("graphs", 1, seconds))
        at_most(f"milliseconds of {seconds} s", found and 1e3 * found, limit, SLOW)
    found = times.get(("graphs", 16, 10))
    at_least("times real time of 16 x 10 s", found and 160 / found, BATCH, SLOW)
    at_most("kernels of a call", result.get("launches", {}).get("graphs", {}).get("on_device"), LAUNCHES, SLOW)
    for mode in ("tf32", "bf16"):
        at_least(f"{mode}: least gain over float32", gain(times, f"graphs, {mode}"), MARGIN,
                 f"{mode} goes: less exact and no faster")  # fmt: skip
    fused = [row for row in result.get("operators", []) if row["fused"]]
    if fused:
        best = min(fused, key=lambda row: row["training step"])["warps"]
        _add(answers, "warps of the fastest training step", best, "4", best == 4, f"WARPS of kernels/triton.py: {best}")
    return answers


def gain(times: dict, mode: str) -> float | None:
    """How many times as fast as ``graphs`` a mode is, where it gains least; None where it was not timed."""
    gains = [
        times[("graphs", batch, seconds)] / median
        for (system, batch, seconds), median in times.items()
        if system == mode and median and times.get(("graphs", batch, seconds))
    ]
    return min(gains, default=None)


def _add(answers: list[dict], question: str, found, wanted: str, ok: bool, otherwise: str) -> None:
    if found is not None:
        answers.append({"question": question, "found": found, "wanted": wanted, "ok": ok, "otherwise": otherwise})


def tell(answers: list[dict]) -> None:
    """A line each."""
    for answer in answers:
        verdict = "ok" if answer["ok"] else f"NO: {answer['otherwise']}"
        print(f"{answer['question']:36} {answer['found']:10.4g}  wanted {answer['wanted']:10} {verdict}")
