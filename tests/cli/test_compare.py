"""The commands compare, noise-floor and agreement: output, exit statuses and errors."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from captured import record, write
from commands import good, refused, run

from shadowsim import compare, default_scenario, noise_floor, simulate

BASE = default_scenario().replace({"horizon_s": 600, "run.period_s": 10})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for name, change in {"equal": {}, "slow": {"shadow.time.mean_s": 0.03}, "short": {"horizon_s": 30}}.items():
        simulate(BASE.replace(change)).save(place / name)
    return place


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """Captures with 500 pairs: 20 differ in their score, and all differ in their request id."""
    place = tmp_path_factory.mktemp("captures")
    source = [record(f"id{i}", {"score": i / 10, "rid": i}, {"x": i}) for i in range(1000)]
    apart = [0.3 if i % 50 == 0 else 0.0 for i in range(1000)]
    shadow = [record(f"id{i}", {"score": i / 10 + apart[i], "rid": -i - 1}, {"x": i}) for i in range(0, 1000, 2)]
    return write(place, "AllTraffic", source), write(place, "Shadow-01", shadow)


class TestCompare:
    def test_of_a_run(self, runs):
        text = good("compare", runs / "equal")
        assert text.startswith("source AllTraffic: ")
        assert "95 % interval" in text
        done = run("compare", runs / "slow")
        assert done.exit_code == 1
        assert "\nWorse: mean +" in done.stdout
        assert done.stderr == ""

    def test_of_two_runs(self, runs):
        assert run("compare", runs / "equal", runs / "slow").exit_code == 1
        text = good("compare", runs / "slow", runs / "equal")  # the second is the later one
        assert "Better: Shadow-01 mean -" in text
        assert good("compare", runs / "equal", runs / "slow", "--role", "source")
        assert run("compare", runs / "equal", runs / "slow", "--role", "shadow").exit_code == 1

    def test_by_metric_and_margin(self, runs):
        assert run("compare", runs / "slow", "--metric", "p99").exit_code == 1
        assert good("compare", runs / "slow", "--metric", "p99", "--margin-pct", 500).count("p99") == 1
        good("compare", runs / "slow", "--metric", "error_rate", "--metric", "error_rate_5xx")

    def test_too_little_fails_when_strict(self, runs):
        good("compare", runs / "short")
        assert run("compare", runs / "short", "--strict").exit_code == 1

    def test_for_machines(self, runs):
        terms = {"margin_pct": 5.0, "confidence": 0.9, "slo_s": 0.05, "look": 2, "looks": 3, "spending": "pocock"}
        texts = {**terms, "slo_s": "50ms"}
        options = [x for name, text in texts.items() for x in (f"--{name.replace('_', '-')}", text)]
        want = compare(runs / "slow", **terms)
        done = run("compare", runs / "slow", *options, "--csv")
        assert done.exit_code == 1
        got = pd.read_csv(io.StringIO(done.stdout))
        pd.testing.assert_frame_equal(got, want.replace("", None), check_dtype=False)
        answer = json.loads(run("compare", runs / "slow", *options, "--json").stdout)
        assert answer["confidence"] == 0.9
        assert [m["high"] for m in answer["metrics"]] == want["high"].tolist()
        assert answer["worse"] is True

    def test_the_slo_has_any_unit(self, runs):
        want = run("compare", runs / "slow", "--slo-s", "0.05s", "--csv").stdout
        assert "slo_miss" in want
        assert run("compare", runs / "slow", "--slo-s", "50ms", "--csv").stdout == want

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ("--slo-s 0.05", "--slo-s: needs a unit, got 0.05; 0.05ms or 0.05s?"),
            ("--slo-s 50mss", "--slo-s: must be seconds, or have a unit"),
            ("--metric p98", "--metric: must be one of mean, p50"),
            ("--role shadow", "--role: is for two runs"),
            ("--margin-pct ten", "--margin-pct: must be a number, got 'ten'"),
            ("--confidence 95", "--confidence: must be > 0 and < 1, got 95"),
            ("--looks 2.5", "--looks: must be a whole number >= 1, got 2.5"),
            ("--look 3", "--looks: must be given together with --look"),
            ("--method sektions", "did you mean sections?"),
            ("--json --csv", "--csv: must not be given together with --json"),
        ],
    )
    def test_slips(self, runs, options, says):
        assert says in refused("compare", runs / "equal", *options.split())

    def test_slips_with_two_runs(self, runs):
        line = refused("compare", runs / "equal", runs / "slow", "--look", 1, "--looks", 2)
        assert line == "--look: is for one run, but DIR2 is given"
        assert "must be source or shadow" in refused("compare", runs / "equal", runs / "slow", "--role", "both")

    def test_what_is_no_run(self, tmp_path):
        assert "is not a directory with a saved result" in refused("compare", tmp_path / "none")
        assert "is not a directory" in refused("compare", "n" * 300)
        assert "holds none of windows.parquet" in refused("compare", tmp_path)
        assert "none: is not a directory with a saved result" in refused("compare", tmp_path, tmp_path / "none")
        assert refused("compare").endswith("(see shadowsim compare --help)")


class TestNoiseFloor:
    OPTIONS = ("--set", "horizon_s=300", "--replications", 2)

    def test_of_the_built_in_scenario(self):
        text = good("noise-floor", *self.OPTIONS)
        assert text.startswith("scenario built-in, since no FILE was given")
        assert "\n\nThe source against itself: 2 runs of 5 min;" in text
        assert "is noise in this set-up." in text
        assert good("noise-floor", *self.OPTIONS, "--seed", 8) != text

    def test_for_machines(self):
        want = noise_floor(default_scenario().replace({"horizon_s": 300}), replications=2, margin_pct=5)
        options = (*self.OPTIONS, "--margin-pct", 5)
        got = pd.read_csv(io.StringIO(good("noise-floor", *options, "--csv")))
        pd.testing.assert_frame_equal(got, want, check_dtype=False)
        answer = json.loads(good("noise-floor", *options, "--json"))
        assert [row["most"] for row in answer] == want["most"].tolist()
        assert answer[-1]["most_pct"] is None

    def test_an_answer_without_a_file_says_what_it_is_about(self, tmp_path):
        short = default_scenario().replace({"horizon_s": 300})
        short.save(tmp_path / "scenario.json")
        says = "scenario built-in, since no FILE was given"
        assert good("noise-floor", *self.OPTIONS).startswith(says)
        assert says not in good("noise-floor", tmp_path / "scenario.json", *self.OPTIONS)
        assert says not in good("noise-floor", *self.OPTIONS, "--csv")

    def test_another_share_is_said_to_be_assumed(self):
        share = "assumed sampling_percentage: 100 % in place of 33 %, for which no pool is as busy as the source's."
        text = good("noise-floor", *self.OPTIONS, "--set", "sampling_percentage=33")
        assert share in " ".join(text.split())
        assert "assumed" not in good("noise-floor", *self.OPTIONS, "--set", "sampling_percentage=50")
        assert "assumed" not in good("noise-floor", *self.OPTIONS, "--set", "sampling_percentage=33", "--csv")

    def test_slips(self):
        assert refused("noise-floor", "--replications", 1) == "--replications: must be a whole number >= 2, got 1"
        assert "did you mean horizon_s?" in refused("noise-floor", "--set", "run.horizon=5")


class TestAgreement:
    def test_of_captures(self, captures):
        text = good("agreement", *captures, "--ignore", "$.rid", "--examples", 2)
        assert "480 of 500" in text
        assert text.count("$.score: source ") == 2
        assert "0 of 500" in good("agreement", *captures)

    def test_a_share_must_be_certain(self, captures):
        """The exact interval of 480 of 500 is 93.89 % to 97.54 %."""
        options = (*captures, "--ignore", "$.rid", "--examples", 0, "--at-least")
        assert good("agreement", *options, "93.8%").endswith("\nmet: equal as values in at least 93.8 %; the "
                                                             "interval's lower end is 93.89 %.\n")  # fmt: skip
        assert good("agreement", *options, "0.938")
        for share, says in (("95%", "not certain, so not met"), ("99%", "missed")):
            done = run("agreement", *options, share)
            assert done.exit_code == 1
            assert f"\n{says}: equal as values in at least {share[:-1]} %; " in done.stdout

    def test_tolerance(self, captures):
        text = good("agreement", *captures, "--ignore", "$.rid", "--atol", 0.31, "--at-least", "99%")
        assert "500 of 500" in text

    def test_format(self, captures):
        text = good("agreement", *captures, "--format", "bytes", "--rtol", 0.1)
        assert "rtol was not applied: 500 answers were compared byte by byte." in text

    def test_for_machines(self, captures):
        options = (*captures, "--ignore", "$.rid", "--at-least", "99%")
        done = run("agreement", *options, "--json")
        assert done.exit_code == 1
        answer = json.loads(done.stdout)
        assert (answer["within"]["n"], answer["at_least"], answer["met"]) == (480, 0.99, False)
        table = pd.read_csv(io.StringIO(run("agreement", *options, "--csv").stdout), index_col="path")
        assert table.loc["$.score", "n_unequal"] == 20
        assert list(table.index) == ["$.score"]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ("--at-least 99", "--at-least: must be a share such as 99% or 0.99, got '99'"),
            ("--at-least most", "--at-least: must be a number, got 'most'"),
            ("--rtol -1", "--rtol: must be a finite number >= 0, got -1"),
            ("--examples -1", "--examples: must be a whole number >= 0, got -1"),
            ("--ignore $.a[", "got '$.a['"),
        ],
    )
    def test_slips(self, captures, options, says):
        assert says in refused("agreement", *captures, *options.split())

    def test_what_is_no_capture(self, captures, tmp_path):
        assert "there is no such file or folder" in refused("agreement", captures[0], tmp_path / "none")
        assert "must not be captures of the source" in refused("agreement", captures[0], captures[0])
