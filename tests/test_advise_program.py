"""experiments/advise.py: what it writes, how it goes on, what it refuses."""

import json
import signal

import pytest
from programs import Program, check_refusal, contents, names, table, times

advise = Program("advise.py")
SMALL = (
    "--target", "0.6", "--seeds", "2", "--epochs", "3", "--hidden", "24", "--samples", "500", "--rate", "2^-1",
    "--roles", "weight,activation",
)  # fmt: skip
FILES = {
    "advice.json", "advice.png", "advice.sqlite", "config.json", "recipe.json", "report.html", "runs.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def advised(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advise") / "out"
    run = advise(*SMALL, "--out", folder)
    assert (run.returncode, run.stderr) == (0, ""), run
    return folder, run.stdout


def test_it_writes_an_advice_and_says_it(advised):
    folder, said = advised
    assert names(folder) == FILES
    advice = json.loads((folder / "advice.json").read_text())
    assert advice["reached"] is True
    for sentence in advice["sentences"]:
        assert sentence in said
    assert said.endswith(f"Results: {folder}\n")
    rows = table(folder / "runs.csv")
    assert len(rows) == advice["runs"]
    assert {"weight.format", "activation.format", "seed", "test_accuracy", "weights_sha256"} <= set(rows[0])
    assert (folder / "report.html").read_text().count("<img") == 1


def test_its_recipe_trains_in_train_py(advised, tmp_path):
    folder, _ = advised
    train = Program("train.py")
    run = train(
        "--recipe", folder / "recipe.json", "--epochs", 3, "--hidden", 24, "--samples", 500, "--rate", "2^-1",
        "--out", tmp_path / "t", "--no-plots",
    )  # fmt: skip
    assert run.returncode == 0, run
    advice = json.loads((folder / "advice.json").read_text())
    assert float(table(tmp_path / "t" / "train.csv")[-1]["test_accuracy"]) == advice["final"]["accuracies"][0]
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    assert config["weights_sha256"] == advice["final"]["weights_sha256"][0]


def test_again_it_rewrites_nothing(advised):
    folder, said = advised
    before = times(folder)
    run = advise(*SMALL, "--out", folder)
    assert run.returncode == 0
    assert run.stdout.splitlines()[-3:] == said.splitlines()[-3:]
    after = times(folder)
    kept = FILES - {"advice.sqlite"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_stopped_and_resumed_in_a_pool_it_finds_the_same(advised, tmp_path):
    folder, _ = advised
    out = tmp_path / "out"
    run = advise.stopped(signal.SIGKILL, ("intnet.sweeps.storage", "Store.add"), 5, *SMALL, "--out", out)
    assert run.returncode == -signal.SIGKILL
    run = advise.process(*SMALL, "--out", out, "--workers", 2, "--quiet")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    ours, theirs = (
        {name: data for name, data in contents(where).items() if name not in ("advice.sqlite",)} for where in (folder, out)
    )
    assert ours == theirs


def test_a_target_out_of_reach_is_a_finding(tmp_path):
    run = advise("--target", "0.999", *SMALL[2:], "--out", tmp_path / "out", "--no-plots")
    assert run.returncode == 0
    assert "is not reached" in run.stdout
    assert names(tmp_path / "out") == FILES - {"advice.png"}


def test_fresh_sets_the_old_one_aside(tmp_path):
    out = tmp_path / "out"
    few = (*SMALL[:-1], "weight")
    assert advise(*few, "--out", out, "--quiet").returncode == 0
    check_refusal(advise(*SMALL, "--out", out, "--quiet"), "holds another study", "axes")
    run = advise(*SMALL, "--out", out, "--fresh", "--no-plots")
    assert run.returncode == 0
    assert run.stdout.startswith(f"The old results are in {out}.")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--target",)),
        (("--target", "97"), ("target is a fraction of 1", "97")),
        (("--target", "x"), ("--target", "'x'")),
        (("--target", "0.5", "--tolerance", "0.7"), ("target minus tolerance",)),
        (("--target", "0.5", "--roles", "weights"), ("roles are", "'weights'")),
        (("--target", "0.5", "--recipe", "fixed17"), ("'fixed17'", "fixed16")),
        (("--target", "0.5", "--dataset", "digitz"), ("'digitz'", "digits")),
        (("--target", "0.5", "--model", "mlpp"), ("'mlpp'", "mlp")),
        (("--target", "0.5", "--seeds", "1"), ("--seeds", "2..64")),
        (("--target", "0.5", "--seeds", "8", "--seeds-max", "4"), ("seeds_max",)),
        (("--target", "0.5", "--scheduler", "HOST"), ("tcp://HOST:PORT", "'HOST'")),
        (("--target", "0.5", "--workers", "2", "--scheduler", "tcp://a:1"), ("not allowed with",)),
        (("--target", "0.5", "--model", "lenet5", "--hidden", "8"), ("hidden layers are those of an mlp",)),
    ],
)
def test_bad_input_is_one_line(arguments, parts, tmp_path):
    check_refusal(advise(*arguments, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


def test_help_teaches():
    run = advise("--help")
    assert run.returncode == 0
    for word in ("bisects", "report.html", "recipe.json", "--seeds-max", "examples:", "accumulators"):
        assert word in run.stdout
