"""The HALP program as its user meets it: its tables, how it goes on, what mistakes give."""

import shutil
import signal

import pytest
from programs import Program, check_refusal, names, table

from intnet.studies.halp_networks import Row
from intnet.studies.halp_networks_reading import SmoothedLoss

program = Program("halp.py")
TINY = ("--study", "convex", "--problems", "a", "--iterations", "300", "--recentre", "50", "--seeds", "1", "--bits", "8")
TINY_RESNET = ("--study", "resnet", "--dataset", "digits", "--width", "0.03125", "--samples", "150", "--batch", "64")
RESNET = (*TINY_RESNET, "--epochs", "2", "--recentre", "0.5,1", "--bits", "2,8", "--recipes", "wide,bfp8-mixed")
SAME = ("recipe", "method", "bits", "recentre")


def test_help_teaches():
    run = program("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for part in ("convex", "digits", "power_of_two", "convex.csv", "lp_svrg", "--recentre", "norm(gradient)", "Exit codes"):
        assert part in run.stdout


def test_the_convex_study(tmp_path):
    folder = tmp_path / "convex"
    run = program(*TINY, "--out", folder)
    assert run.returncode == 0, run.stderr
    assert names(folder) == {"convex.csv", "convex.json", "convex.png", "config.json", "report.html"}
    rows = table(folder / "convex.csv")
    assert tuple(rows[0]) == ("problem", "method", "bits", "mu", "T", "scale", "seed", "iteration", "distance")
    assert {row["method"] for row in rows} == {"sgd", "svrg", "halp", "lp_sgd", "lp_svrg"}
    assert "HALP, 8 bits, mu 4, T 50, exact scale: " in run.stdout
    again = program(*TINY, "--out", folder, "--threads", "1", "--no-plots")
    assert again.stdout == run.stdout


def test_the_digits_study(tmp_path):
    few = ("--study", "digits", "--iterations", "400", "--recentre", "200", "--seeds", "1", "--samples", "100", "--quiet")
    run = program(*few, "--scale", "power_of_two", "--rounding", "ties_pos", "--out", tmp_path / "digits")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    rows = table(tmp_path / "digits" / "digits.csv")
    assert tuple(rows[0]) == ("method", "bits", "mu", "T", "scale", "seed", "iteration", "gradient_norm")
    assert len(rows) == 5 * 50


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a finished study of networks, for reading only."""
    folder = tmp_path_factory.mktemp("made") / "study"
    run = program(*RESNET, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run


def test_the_resnet_study(made):
    folder, run = made
    rows = table(folder / "epochs.csv")
    assert tuple(rows[0]) == Row._fields
    trained = {(row["recipe"], row["method"], row["bits"], row["recentre"], row["T"]) for row in rows}
    assert trained == {
        ("wide", "halp", "8", "0.5", "2"),
        ("wide", "halp", "8", "1.0", "3"),
        ("wide", "halp", "2", "1.0", "3"),
        ("bfp8-mixed", "halp", "8", "1.0", "3"),
        ("wide", "svrg", "0", "1.0", "3"),
        ("wide", "sgd", "0", "0.0", "0"),
    }
    assert len(rows) == 2 * 6
    assert all(float(row["saturated"]) > 0 for row in rows if row["bits"] == "2")
    pictures = {"loss-by-period.png", "accuracy-by-period.png", "loss-by-bits.png", "accuracy-by-bits.png"}
    assert names(folder) == pictures | {"runs", "epochs.csv", "training_loss.csv", "table.md", "config.json", "report.html"}
    losses = table(folder / "training_loss.csv")
    assert tuple(losses[0]) == SmoothedLoss._fields
    assert [row["iteration"] for row in losses] == ["6"] * 6
    for row in losses:
        of_epochs = [float(one["train_loss"]) for one in rows if [one[n] for n in SAME] == [row[n] for n in SAME]]
        assert float(row["loss"]) == pytest.approx((64 * sum(of_epochs) / 2) / 64, rel=0.2)  # the last batch is smaller
    text = (folder / "table.md").read_text()
    assert "| HALP, 8 bits, T = 0.5 epochs | 2 | 2 | " in text
    assert "| HALP, 8 bits, T = 1 epoch, all in bfp8-mixed | 3 | 2 | " in text
    assert "84.2" not in text  # that is CIFAR-10's
    assert text in run.stdout
    assert "as the epochs between two full gradients grow" in run.stdout
    assert "Beside 8 bits" in run.stdout


def test_a_finished_study_is_only_read(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.csv")}
    run = program(*RESNET, "--out", folder, "--quiet", "--no-plots")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_killed_and_resumed_it_gives_the_same(made, tmp_path):
    folder = tmp_path / "study"
    run = program.stopped(signal.SIGKILL, ("intnet.checkpoint", "save"), 1, *RESNET, "--out", folder, "--no-plots")
    assert run.returncode == -signal.SIGKILL
    assert not (folder / "epochs.csv").exists()
    run = program(*RESNET, "--out", folder, "--no-plots", "--threads", "1")
    assert run.returncode == 0, run.stderr
    for name in ("epochs.csv", "training_loss.csv", "table.md", "config.json"):
        assert (folder / name).read_bytes() == (made[0] / name).read_bytes()


def test_longer_it_goes_on_and_what_is_not_asked_for_is_named(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    run = program(*RESNET, "--epochs", "3", "--methods", "sgd", "--recipes", "wide", "--out", folder, "--no-plots")
    assert run.returncode == 0, run.stderr
    assert "epoch   3" in run.stdout
    assert "epoch   2" not in run.stdout
    assert "not asked for, so not in the tables: halp-bfp8-mixed-b8-T1-seed0, " in run.stdout
    kept = (folder / "config.json").read_bytes()
    for options in (("--momentum", "0.5"), ("--seeds", "2", "--decay", "1e-4")):
        refused = program(*RESNET, *options, "--out", folder, "--no-plots")
        check_refusal(refused, "there, ", " here", "--fresh")
        assert (folder / "config.json").read_bytes() == kept
    other = program(*RESNET, "--mu", "3", "--methods", "halp", "--recentre", "1", "--bits", "8", "--out", folder, "--no-plots")
    check_refusal(other, "mu 20 there, 3 here", "--out", "--fresh")


def test_what_ended_early_is_told(tmp_path):
    """With a grid so fine that no weight moves, of one sample a step."""
    still = (*TINY_RESNET, "--batch", "1", "--samples", "210", "--epochs", "2", "--methods", "halp", "--bits", "8")
    still = (*still, "--recentre", "1", "--mu", "1e16", "--out", tmp_path, "--no-plots")
    run = program(*still)
    assert run.returncode == 0, run.stderr
    assert "halp-wide-b8-T1-seed0 ended early: the network has died: " in run.stdout
    assert "| HALP, 8 bits, T = 1 epoch | 210 | 1 | " in (tmp_path / "table.md").read_text()
    assert program(*still, "--quiet").stdout == ""


def test_a_damaged_table_says_what_to_do(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "study")
    path = folder / "runs" / "sgd-wide-seed0" / "epochs.csv"
    whole = path.read_bytes()
    for content, part in ((whole[:-9], "values of 10"), (b"\xff\xfe", "no text")):
        path.write_bytes(content)
        check_refusal(program(*RESNET, "--out", folder, "--no-plots"), str(path), part, "remove it")
    path.unlink()
    assert program(*RESNET, "--out", folder, "--no-plots").returncode == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--study", "resnet", "--bits", "1,8"), ("2..16", "got 1")),
        (("--study", "resnet", "--mu", "0"), ("mu", "greater than 0")),
        (("--study", "resnet", "--mu", "1,2"), ("--mu", "is one value, got 2")),
        (("--study", "resnet", "--mu", "1e30"), ("mu", "below 2^62")),
        (("--study", "resnet", "--recentre", "0"), ("recentre", "above 0")),
        (("--study", "resnet", "--recentre", "1e300"), ("recentre", "up to 1,000,000", "1e+300")),
        (("--study", "resnet", "--iterations", "10"), ("--iterations belongs to --study convex or digits",)),
        (("--study", "resnet", "--methods", "adam"), ("halp, svrg, sgd", "'adam'")),
        (("--study", "resnet", "--recipes", "wide,niti8"), ("niti8", "normalized")),
        (("--study", "resnet", "--dataset", "flowers"), ("flowers", "cifar10")),
        ((*TINY_RESNET, "--recentre", "0.1"), ("recentre 0.1 is 0.3 of the 3 steps of an epoch", "at least one")),
        ((*TINY_RESNET, "--batch", "150", "--recentre", "0.01"), ("recentre 0.01 is 0.01 of the 1 steps", "at least one")),
        (("--study", "convex", "--width", "1"), ("--width belongs to --study resnet",)),
        (("--study", "convex", "--bits", "1"), ("bits", "2..16", "got 1")),
        (("--study", "convex", "--mu", "3,few"), ("--mu", "allowed is a number")),
        (("--study", "convex", "--recentre", "0.5"), ("whole number, got 0.5",)),
        (("--study", "convex", "--decay", "0.1"), ("--decay belongs to --study digits or resnet",)),
        (("--study", "digits", "--problems", "a"), ("--problems belongs to --study convex",)),
        (("--study", "linear"), ("invalid choice",)),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    check_refusal(program(*arguments, "--out", tmp_path / "none"), *parts)
    assert not (tmp_path / "none").exists()
