import re

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.evaluation_figures import failures_by_stage, kinds_of
from sop_jax.evaluation.evaluation_report import EvaluationReport, render_evaluation
from sop_jax.evaluation.paired import PairCounts, compare_counts
from sop_jax.evaluation.provenance import Provenance
from sop_jax.evaluation.results import Subject, summarise
from sop_jax.evaluation.retention import forgetting
from sop_jax.evaluation.tables import comparison_table, forgetting_table, results_table
from sop_jax.specs.records import Outcome


def trials(*ends):
    """(outcome, kind, furthest stage, how many)."""
    made = []
    for outcome, kind, stage, num in ends:
        made += [TrialResult(len(made) + i, outcome, kind, 120, 4.0, stage, stage) for i in range(num)]
    return made


FAILURE, SUCCESS, TIMEOUT = Outcome.FAILURE, Outcome.SUCCESS, Outcome.TIMEOUT
SHELF = summarise(
    Subject("restock_shelf", "mine", stages=("approach", "grasp", "move", "place", "done")),
    trials(
        (SUCCESS, "", "done", 12), (FAILURE, "dropped", "move", 3), (TIMEOUT, "missed_grasp", "grasp", 4),
        (TIMEOUT, "timeout", "move", 1),
    ),
    seed=0,
)  # fmt: skip
LAUNDRY = summarise(Subject("laundry_fold", "mine"), trials((SUCCESS, "", "done", 20)), seed=0)


def test_failures_are_counted_by_stage_and_kind():
    assert SHELF.failures == {"missed_grasp": 4, "dropped": 3, "timeout": 1}
    assert SHELF.failure_stages == {"grasp": {"missed_grasp": 4}, "move": {"dropped": 3, "timeout": 1}}
    assert list(SHELF.failure_stages) == ["grasp", "move"]  # as they are passed
    assert LAUNDRY.failure_stages == {}
    blind = summarise(Subject("a", "b"), trials((TIMEOUT, "", "", 2)), seed=0)
    assert (blind.failures, blind.failure_stages) == ({"timeout": 2}, {})


def test_a_kind_has_one_colour_on_the_whole_page():
    other = summarise(Subject("a", "b"), trials((TIMEOUT, "dropped", "", 9)), seed=0)
    colours = kinds_of([SHELF, other])
    assert list(colours) == ["dropped", "missed_grasp", "timeout"]
    assert len(set(colours.values())) == 3
    svg = failures_by_stage("shelf", SHELF, colours)
    assert all(colour in svg for colour in colours.values())
    assert svg == failures_by_stage("shelf", SHELF, colours)
    blind = failures_by_stage("blind", other, colours)
    assert colours["dropped"] in blind
    assert colours["timeout"] not in blind


def test_the_page_holds_its_numbers_and_no_outside_address(tmp_path):
    sheet = tmp_path / "sheet.jpg"
    sheet.write_bytes(b"\xff\xd8pixels")
    data = EvaluationReport(
        title="Evaluation of mine",
        command="sop eval --weights <mine>",
        seeds="nobody has practised on these seeds",
        results={"restock_shelf": SHELF, "laundry_fold": LAUNDRY},
        sheets={"restock_shelf": sheet},
        provenance=Provenance("2026-01-02T03:04:05+00:00", "2 CPU cores (test)", "Linux", {"jax": "0.10.2"}),
    )
    page = render_evaluation(data)
    assert page == render_evaluation(data)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "12 / 20" in text
    assert "60% [39%, 78%]" in text  # Wilson, 12 of 20: 38.7 to 78.1
    assert "missed_grasp&nbsp;4, dropped&nbsp;3, timeout&nbsp;1" in text
    assert "sop eval --weights &lt;mine&gt;" in page
    assert "data:image/jpeg;base64,/9hwaXhlbHM=" in page
    assert set(re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)([^"']*)""", page)) == set()
    assert not re.search(r"<(link|script|iframe)\b", page)


def test_tables():
    table = results_table({"restock_shelf": SHELF, "laundry_fold": LAUNDRY}).splitlines()
    assert table[2] == (
        "| `restock_shelf` | 60% [39, 78] | 12 / 20 | 154 | 900 | 4.0 s | 4.0 s | missed_grasp 4, dropped 3, timeout 1 |"
    )
    assert table[3] == "| `laundry_fold` | 100% [84, 100] | 20 / 20 | 257 | 900 | 4.0 s | 4.0 s | - |"
    pairs = comparison_table({"shelf": compare_counts(PairCounts(1, 1, 7, 12))}, "base", "ours").splitlines()
    assert pairs[2] == "| `shelf` | 10% | 38% | +29 [+3, +52] | 1 / 7 | 0.07 |"
    before = {"box": trials((SUCCESS, "", "", 9), (TIMEOUT, "", "", 1))}
    after = {"box": trials((SUCCESS, "", "", 1), (TIMEOUT, "", "", 9))}
    lost = forgetting_table(forgetting(before, after)).splitlines()
    assert lost[2].startswith("| `box` | 90% | 10% | +80 [+")
    assert lost[2].endswith("| 10 | 0.0078 |")
