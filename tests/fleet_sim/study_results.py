"""Hand-made results of the main-results study."""

TASKS = ("restock_shelf", "laundry_fold", "box_assembly")


def evaluation(successes, tasks=TASKS, kind="dropped", first_seed=100):
    """A cell's evaluation: on every task, these trials succeed (a string of 1 and 0)."""
    trials = [
        {
            "seed": first_seed + number,
            "outcome": "success" if one == "1" else "failure",
            "failure_kind": "" if one == "1" else kind,
            "num_frames": 120,
            "duration_s": 4.0,
            "last_stage": "",
            "furthest_stage": "",
        }
        for number, one in enumerate(successes)
    ]
    num = successes.count("1")
    result = {
        "throughput_per_hour": 900.0,
        "successes_per_hour": 257.0 * num / len(successes),
        "failures": {kind: len(successes) - num} if num < len(successes) else {},
        "success": num / len(successes),
    }
    return {task: {"result": result, "trials": trials} for task in tasks}


def fleet(human_s=60.0, steps=1000, successes=40):
    """A cell's spending."""
    return {
        "robot_hours": 2.0,
        "human_s": human_s,
        "learner_steps": steps,
        "num_publications": 40,
        "median_staleness_s": 5.0,
        "online_share": 0.5,
        "tasks": {"restock_shelf": {"num_episodes": successes + 8, "num_successes": successes, "robot_s": 480.0}},
    }


def cell(successes, curve=(), retention=None, **spending):
    """A cell of a method that learns."""
    content = {
        "evaluation": evaluation(successes),
        "fleet": fleet(**spending),
        "curve": [{"time_s": time_s, "version": 1, "evaluation": evaluation(found)} for time_s, found in curve],
    }
    return content if retention is None else {**content, "retention": retention}
