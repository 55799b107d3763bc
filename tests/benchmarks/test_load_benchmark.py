from benchmarks.load import ITEMS_PER_EPISODE, count_lost


def test_what_is_lost_is_told_by_the_table():
    assert ITEMS_PER_EPISODE == 19  # 300 frames, 16 to a segment
    assert count_lost(3 * 19, 3) == 0
    assert count_lost(3 * 19 - 1, 3) == 1
    assert count_lost(2 * 19 - 1, 3) == 2
    assert count_lost(0, 3) == 3
