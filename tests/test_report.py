"""The report: what stands in it, that nothing in it is taken for HTML, and what a browser makes of it."""

import base64
import hashlib
import html
import json
import re
import shutil
import struct
import subprocess
import zlib

import pytest

from intnet import files
from intnet.errors import StudyError
from intnet.report import _tables, write_report
from intnet.report._values import setting, shortened
from intnet.studies import tables
from intnet.studies import trajectories as of_study

EVIL = "<script>alert('x')</script> & \"quotes\""
SENTENCES = (
    "Best: 75.4% at 2^-9.",
    f"Cliff: {EVIL} in `dense1`.",
    "Problem a:\n  SGD: 0.1 & more.\n  HALP: 0.05.",
    "| name | accuracy |\n|---|---:|\n| `wide` | 35.21 ± 1.00 |\n| narrow | 4.5 |\n| none |  |",
)
TABLE = [("x", "word", "value"), (10, "b10", 0.5), (9, "b9", ""), (-1, "a", 1e-300), (100, EVIL, 0.123456789), (9, "c", "inf")]


def png(width=3, height=2):
    """Return a picture, all black."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + b"\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def csv_text(rows):
    return "\n".join(",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


@pytest.fixture
def folder(tmp_path):
    """Make a folder like a study's."""
    (tmp_path / "config.json").write_text(
        json.dumps({"study": EVIL, "bits": [*range(8, 24), 30, 32, 33], "recipe": {"weight": [{"a": None}], "biases": True}})
    )
    (tmp_path / "cliffs.png").write_bytes(png())
    (tmp_path / "an-extra.png").write_bytes(png(1, 9))
    (tmp_path / "telemetry.png").write_bytes(png())
    (tmp_path / "grid.csv").write_text(csv_text(TABLE))
    (tmp_path / "telemetry.csv").write_text("epoch,lost\n1,0\n2,5\n")
    (tmp_path / ".grid.draft.png").write_bytes(b"half a pict")
    (tmp_path / "runs").mkdir()
    return tmp_path


def made(folder, title="Cliffs: digits", sentences=SENTENCES):
    write_report(folder, title=title, sentences=sentences)
    return (folder / files.REPORT).read_text(encoding="utf-8")


# 1. What stands in it -----------------------------------------------------------------------------------------------------


def test_everything_on_top_of_the_folder_is_in_it(folder):
    page = made(folder)
    assert re.findall(r"<h2>(\w+)</h2>", page) == ["Findings", "Pictures", "Tables", "Telemetry", "Settings"]
    assert "<title>Cliffs: digits</title>" in page
    assert "<p>Best: 75.4% at 2^-9.</p>" in page
    assert "<ul><li>SGD: 0.1 &amp; more.</li><li>HALP: 0.05.</li></ul>" in page
    assert "<td><code>wide</code></td><td class=n>35.21 ± 1.00</td>" in page
    pictures = re.findall(r'<img.*?alt="([^"]+)" width="(\d+)" height="(\d+)" src="data:image/png;base64,([^"]+)"', page)
    assert [picture[:3] for picture in pictures] == [
        ("Accuracy, and what rounding did to updates, over fraction bits and learning rate, with both cliffs", "3", "2"),
        ("an extra", "1", "9"),
        ("Every tensor: the bits of its word that it used, what did not fit, what was lost to rounding", "3", "2"),
    ]
    assert base64.b64decode(pictures[1][3]) == png(1, 9)
    assert page.index("grid.csv") < page.index(">Telemetry</h2>") < page.index("telemetry.csv") < page.index(">Settings</h2>")
    assert "8..23, 30, 32, 33" in page
    assert "<dt>recipe</dt><dd><dl><div><dt>weight</dt>" in page


def test_nothing_is_taken_for_html(folder):
    page = made(folder, title=EVIL)
    assert "alert('x')" not in page
    assert page.count(html.escape(EVIL)) == 5  # title, heading, sentence, cell, setting
    assert len(re.findall("<script", page)) == 1
    assert EVIL not in page


def test_it_fetches_nothing_and_lets_nothing_else_in(folder):
    page = made(folder)
    assert "http:" not in page
    assert "https:" not in page
    assert all(place.startswith(("data:", "#")) for place in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert f"{tag}-src {hashed(text)};" in policy
    assert "style=" not in page  # which the policy forbids
    assert str(folder) not in page


def hashed(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_numbers_are_short_and_their_titles_whole(folder):
    page = made(folder)
    assert '<td class=n title="0.123456789">0.123457</td>' in page
    assert "<td class=n>1e-300</td>" in page
    assert "<td class=n></td>" in page
    assert "<td>b10</td>" in page
    cases = {
        "1": "1",
        "-12345678901234567890": "-12345678901234567890",
        "0.10": "0.10",
        "1234567.5": "1.23457e+06",
        "nan": "nan",
    }
    assert {text: shortened(text) for text in cases} == cases


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([1, 2, 3, 5, 8, 9], "1..3, 5, 8, 9"),
        ([3, 2, 1], "3, 2, 1"),
        ([True, 2, 3.0, "a<b", None], "yes, 2, 3.0, a&lt;b, none"),
        ([], "none"),
        ({}, "none"),
        (0, "0"),
        (False, "no"),
        (list(range(0, 1000, 2)), ", ".join(map(str, range(0, 200, 2))) + ", and 400 more"),
        ([[1, 2], {"a": 1}], "<ul><li>1, 2</li><li><dl><div><dt>a</dt><dd>1</dd></div></dl></li></ul>"),
    ],
)
def test_settings(value, shown):
    assert setting(value) == shown


def test_long_tables_are_cut(folder, monkeypatch):
    monkeypatch.setattr(_tables, "ROWS", 3)
    rows = [("epoch", "lost"), *((number, 2 * number) for number in range(1000, 1010))]
    for name in ("grid.csv", "telemetry.csv"):
        (folder / name).write_text(csv_text(rows))
    page = made(folder)
    notes = re.findall(r'<p class="note">(.*?)</p>', page)
    assert notes == [
        f"<code>{name}</code>: 3 of 10 rows, also when they are sorted. The {which} 7 are left out; all are there."
        for name, which in (("grid.csv", "last"), ("telemetry.csv", "first"))
    ]
    shown = [int(row) for row in re.findall(r"<tr><td class=n>(\d+)</td>", page)]
    assert shown == [1000, 1001, 1002, 1007, 1008, 1009]
    (folder / "grid.csv").write_text(csv_text(rows[:4]))
    assert "<code>grid.csv</code>: 3 rows." in made(folder)


def test_what_is_damaged_is_said(folder):
    (folder / "config.json").write_text("{")
    (folder / "cliffs.png").write_bytes(b"GIF89a")
    (folder / "grid.csv").write_text("a\n" + "x" * 200_000)
    (folder / "telemetry.csv").write_text("")
    page = made(folder)
    assert "<code>config.json</code> is damaged, so the settings are not shown: Expecting property name" in page
    assert "<code>cliffs.png</code> is no picture that can be shown." in page
    assert "<code>grid.csv</code> is no table that can be shown: field larger than" in page
    assert "<code>telemetry.csv</code> is empty." in page


def test_a_table_with_uneven_rows_and_no_text(folder):
    (folder / "grid.csv").write_bytes(b"a,b\n1\n2,\xff,3\n")
    assert "<tr><td class=n>1</td><td></td></tr>\n<tr><td class=n>2</td><td>\N{REPLACEMENT CHARACTER}</td></tr>" in made(folder)


def test_an_empty_folder_has_a_report_of_what_is_said(tmp_path):
    page = made(tmp_path)
    assert re.findall(r"<h2>(\w+)</h2>", page) == ["Findings"]
    assert [path.name for path in tmp_path.iterdir()] == [files.REPORT]


# 2. When it is written ----------------------------------------------------------------------------------------------------


def test_the_same_folder_gives_the_same_bytes_and_is_left_alone(folder, tmp_path_factory):
    page, path = made(folder), folder / files.REPORT
    before = path.stat().st_mtime_ns
    assert made(folder) == page
    assert path.stat().st_mtime_ns == before
    other = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "copy")
    (other / files.REPORT).unlink()
    assert made(other) == page
    (folder / "telemetry.csv").write_text("epoch,lost\n1,0\n2,6\n")
    assert made(folder) != page


def test_errors_are_lines(folder):
    with pytest.raises(StudyError, match=r"cannot use .*missing"):
        made(folder / "missing")
    (folder / files.REPORT).mkdir()
    with pytest.raises(StudyError, match=r"cannot write .*report\.html"):
        made(folder)


def test_it_is_known_as_a_study_s(tmp_path):
    for number, set_aside in enumerate((tables.set_aside, of_study.set_aside)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in (files.REPORT, ".report.draft.html"):  # all that is left of a study
            (folder / name).touch()
        assert (set_aside(folder, ()) / files.REPORT).exists()
        assert not folder.exists()


def test_a_study_of_networks_goes_on_beside_it(tmp_path):
    (tmp_path / files.REPORT).touch()
    assert of_study.run([], tmp_path, (), lambda _: None) == []
    with (
        pytest.raises(StudyError, match=r"report\.html, but no config\.json"),
        tables.opened(tmp_path, "t.csv", tuple, {}, {}),
    ):
        pass


# 3. In a browser ----------------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
]
PROBE = """
const found = {};
const tables = [...document.querySelectorAll("table")];
const column = (table, place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
const click = (table, place) => {
  const head = table.tHead.rows[0].cells[place];
  head.querySelector("button").click();
  return [head.getAttribute("aria-sort"), table.querySelectorAll("[aria-sort]").length, column(table, place)];
};
const [summary, grid] = tables;
found.summary = [click(summary, 1), click(summary, 1)];
found.x = [click(grid, 0)];
found.words = column(grid, 1);
found.x.push(click(grid, 0));
found.reversed = column(grid, 1);
found.value = [click(grid, 2), click(grid, 2)];
found.word = [click(grid, 1)];
found.pictures = [...document.images].map((image) => image.complete && image.naturalWidth);
found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
const out = document.createElement("pre");
out.id = "found";
out.textContent = JSON.stringify(found);
document.body.append(out);
"""


def browse(page, place):
    """Return the page as a browser leaves it, and what it said on its console."""
    with (place / "probed.html").open("w", encoding="utf-8") as file:
        file.write(page)
    command = [BROWSER, *QUIET, f"--user-data-dir={place / 'profile'}", "--window-size=390,844", "--dump-dom"]
    run = subprocess.run([*command, (place / "probed.html").as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; Debian has it in the package chromium")
def test_in_a_browser(folder, tmp_path_factory):
    (folder / "wide.csv").write_text(
        csv_text([[f"column_{number}" for number in range(60)], [number / 7 for number in range(60)]])
    )
    page, place = made(folder), tmp_path_factory.mktemp("browser")
    assert browse(page, place)[1] == []
    probed = page.replace("script-src ", f"script-src {hashed(PROBE)} ").replace("</body>", f"<script>{PROBE}</script></body>")
    dom, console = browse(probed, place)
    assert console == []
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom)[1]))
    up, down = "ascending", "descending"
    assert found["summary"] == [[up, 1, ["4.5", "35.21 ± 1.00", ""]], [down, 1, ["35.21 ± 1.00", "4.5", ""]]]
    assert found["x"] == [[up, 1, ["-1", "9", "9", "10", "100"]], [down, 1, ["100", "10", "9", "9", "-1"]]]
    assert found["words"] == ["a", "b9", "c", "b10", EVIL]
    assert found["reversed"] == [EVIL, "b10", "b9", "c", "a"]  # equal ones keep their order
    assert found["value"] == [
        [up, 1, ["1e-300", "0.123457", "0.5", "inf", ""]], [down, 1, ["inf", "0.5", "0.123457", "1e-300", ""]]
    ]  # fmt: skip
    assert found["word"] == [[up, 1, [EVIL, "a", "b9", "b10", "c"]]]
    assert found["pictures"] == [3, 1, 3]
    assert found["wide"] is False  # only the tables scroll sideways
    assert browse(page.replace("script-src ", "script-src 'none' "), place)[1]  # what a page is refused would be seen
