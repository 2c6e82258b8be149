import math
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

import soundfile
from browser import chromium

from melglow_plugin.evaluation.evaluate import summarise
from melglow_plugin.evaluation.report import Clip, Scatter, System, write_report

RATE = 22_050  # Hz
SYSTEMS = [System("recording"), System("MelGlow & <co>", "σ = 0.6"), System("Griffin-Lim")]
VOID = {"meta", "img", "br", "link", "line", "circle", "polyline"}


class Structure(HTMLParser):
    """Checks that tags nest, and keeps them with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    seconds = np.arange(RATE) / RATE
    clips = []
    for number in range(2):
        wavs = {}
        for system, gain in zip(SYSTEMS, (0.3, 0.03, 0.9), strict=True):
            wavs[system.name] = folder / f"{number}-{gain}.wav"
            soundfile.write(wavs[system.name], gain * np.sin(2 * np.pi * 440 * seconds), RATE)
        values = {system.name: {"mcd_dtw": 6.254, "estoi": math.nan, "own <score>": 1.0} for system in SYSTEMS[1:]}
        clips.append(Clip(f"clip/{number}", 'He said: "a < b" & left', wavs, values))
    summary = summarise([{"mcd_dtw": v, "log_f0_rmse": math.nan} for v in (5.0, 7.0)])
    summaries = {SYSTEMS[1].name: summary, SYSTEMS[2].name: {**summary, "estoi": {**summary["mcd_dtw"], "missing": 1}}}
    curve = [{"epoch": e, "train/nll": -e / 2, "valid/nll": 0.1 - e / 2, "valid/stft": 3.0} for e in (1, 2, 3)]
    facts = {"Steps": "1,200", "Speech": "1 hour <of it>"}
    return write_report(folder / "page", "A <script>title</script>", facts, clips, SYSTEMS, summaries, curve, "About &")


@pytest.fixture(scope="module")
def structure(page) -> Structure:
    parsed = Structure()
    parsed.feed(page.read_text(encoding="utf-8"))
    return parsed


def test_page_nests_and_escapes(page, structure):
    html = page.read_text(encoding="utf-8")
    assert structure.open == []
    assert "A &lt;script&gt;title&lt;/script&gt;" in html and "<script>title" not in html
    assert "He said: &quot;a &lt; b&quot; &amp; left" in html
    assert "MelGlow &amp; &lt;co&gt;" in html and "<co>" not in html
    assert "1 hour &lt;of it&gt;" in html and "own &lt;score&gt;" in html


def test_folder_is_self_contained(page, structure):
    sources = [tag["src"] for _, tag in structure.tags if "src" in tag]
    assert len(sources) == len(set(sources)) == 2 * 2 * len(SYSTEMS)
    assert all((page.parent / source).is_file() and not source.startswith("/") for source in sources)
    assert not re.search(r"https?://|url\(|@import", page.read_text(encoding="utf-8"))
    assert not structure.all("link")


def test_players_come_first(page, structure):
    html = page.read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="(\w+)">([^<]+)</h2>', html) == [
        ("listen", "Listen"), ("scores", "Scores"), ("model", "The model"), ("training", "Training"),
    ]  # fmt: skip
    assert html.index("<audio") < html.index("<table")
    assert [link["href"] for link in structure.all("a")] == ["#listen", "#scores", "#model", "#training"]


def test_players_and_pictures_have_labels(structure):
    labels = [player["aria-label"] for player in structure.all("audio")]
    assert len(set(labels)) == 2 * len(SYSTEMS) and "clip/0, Griffin-Lim" in labels
    assert all("controls" in player for player in structure.all("audio"))
    assert all("0 to 11.025 kHz" in picture["alt"] for picture in structure.all("img"))
    assert all(chart["aria-label"] for chart in structure.all("svg"))
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in structure.all("div") if "tabindex" in box)


def test_copies_are_played_at_one_level_without_clipping(page):
    levels = [soundfile.read(path)[0].std() for path in sorted((page.parent / "audio").glob("001-*"))]
    np.testing.assert_allclose(levels, 0.3 / math.sqrt(2), rtol=1e-3)


def test_table_shows_means_intervals_and_what_is_missing(page):
    html = page.read_text(encoding="utf-8")
    assert "6.00<small>± 12.71</small></td>" in html  # 12.7062 * sqrt(2) / sqrt(2)
    assert "<small>of 2</small>" in html and "<td>–</td>" in html
    assert "Student&#x27;s t over utterances (2 of them)" in html
    scores = html[html.index('<h2 id="scores">') :]
    assert scores.index(">MCD<") < scores.index(">log F0<") < scores.index(">ESTOI<")  # the order of SCORES
    assert 'aria-label="lower is better">↓' in html and 'aria-label="higher is better">↑' in html
    assert html.count("<td>6.25</td>") == 4


def test_training_curve_is_drawn(structure):
    labels = [chart["aria-label"] for chart in structure.all("svg")]
    assert labels == [
        "nll by epoch, train from -0.5 to -1.5, valid from -0.4 to -1.4",
        "stft by epoch, valid from 3 to 3",
    ]
    lines = [line["points"].split() for line in structure.all("polyline")]
    assert [len(line) for line in lines] == [3, 3, 3]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights)  # it falls


def test_without_scores_or_curve(tmp_path):
    page = write_report(tmp_path, "Empty", {}, [], [System("recording")], {})
    assert "None were computed" in page.read_text(encoding="utf-8")


def test_others_are_points_with_names(tmp_path):
    points = [(4.6, 2.5, "ours", True), (17.6, 2.7, "theirs <64>", False), (0.9, 2.7, "small", False)]
    chart = Scatter("Size", "million parameters", "score", points, "their pages")
    page = write_report(tmp_path, "Chart", {}, [], [System("recording")], {}, others=[chart])
    found = Structure()
    found.feed(page.read_text(encoding="utf-8"))
    dots = {dot["class"]: [] for dot in found.all("circle")}
    for dot in found.all("circle"):
        dots[dot["class"]].append((float(dot["cx"]), float(dot["cy"])))
    (ours,), theirs = dots["line0"], sorted(dots["line1"])
    assert theirs[0][0] < ours[0] < theirs[1][0]  # by size, to the right
    assert theirs[0][1] == theirs[1][1] < ours[1]  # by score, upwards
    assert {"theirs &lt;64&gt;", "their pages"} <= set(re.findall(r">([^<>]+)</", page.read_text(encoding="utf-8")))


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    for name, rate in (("a", 16_000), ("b", RATE)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(4000), rate)
    systems = [System("a"), System("b")]
    with pytest.raises(ValueError, match="clip x has wavs of a, none of b"):
        write_report(tmp_path, "", {}, [Clip("x", "", {"a": tmp_path / "a.wav"})], systems, {})
    wavs = {name: tmp_path / f"{name}.wav" for name in "ab"}
    with pytest.raises(ValueError, match=r"clip x: sample rates differ, .*16000.*22050"):
        write_report(tmp_path, "", {}, [Clip("x", "", wavs)], systems, {})


# In a browser


def browse(page: Path, *options: str) -> str:
    """The body's opening tag after the page's script has run."""
    if (browser := chromium()) is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", *options]
    command = [browser, *flags, f"--user-data-dir={page.parent.parent / 'profile'}", "--virtual-time-budget=10000"]
    dump = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    return re.search(r"<body[^>]*>", dump).group()


def test_browser_loads_every_player_and_picture(page):
    body = browse(page)
    assert f'data-audio-loaded="{2 * len(SYSTEMS)}"' in body
    assert f'data-images-loaded="{2 * len(SYSTEMS)}"' in body


def test_clips_beyond_the_third_are_one_click_away_and_load(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(RATE) / 9), RATE)
    clips = [Clip(f"clip{number}", "", {"recording": tmp_path / "a.wav"}) for number in range(5)]
    page = write_report(tmp_path / "page", "Five", {}, clips, [System("recording")], {})
    html = page.read_text(encoding="utf-8")
    assert html.index("clip2") < html.index("<summary>2 more clips</summary>") < html.index("clip3")
    assert 'data-audio-loaded="5"' in browse(page)


def test_one_player_at_a_time(page):
    probe = """<script>
      (async () => {
        for (const player of players.slice(0, 2)) await player.play();
        await new Promise(done => setTimeout(done, 100));  // for the pause event
        document.body.dataset.playing = players.map(p => +!p.paused).join("");
        document.body.dataset.marked = document.querySelectorAll(".playing").length;
      })();
    </script>"""
    copy = page.with_name("probe.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{probe}</body>"), encoding="utf-8")
    body = browse(copy, "--autoplay-policy=no-user-gesture-required")
    assert 'data-playing="010000"' in body and 'data-marked="1"' in body
