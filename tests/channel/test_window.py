import pytest
import torch
import torch.nn.functional as F
import torchvision

from attnlib.channel.window import best_window, overlap, window_means

MAPS = torch.randn(3, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def naive(one: torch.Tensor, rows: int, columns: int) -> tuple[float, tuple[int, int]]:
    """The highest mean and its place (row, column), window by window; the first one of equals."""
    best, where = -float("inf"), (0, 0)
    for i in range(one.shape[0] - rows + 1):
        for j in range(one.shape[1] - columns + 1):
            total = sum(float(one[i + a, j + b]) for a in range(rows) for b in range(columns))
            if total / (rows * columns) > best:
                best, where = total / (rows * columns), (i, j)
    return best, where


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 2), (10, 14), (10, 1)])
def test_equals_the_naive_loop(size):
    boxes, means = best_window(MAPS, size), window_means(MAPS, size)
    for one, box, some in zip(MAPS, boxes, means):
        best, (top, left) = naive(one, *size)
        assert box.tolist() == [left, top, left + size[1], top + size[0]]
        assert float(some.max()) == pytest.approx(best, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rows, columns", [(2, 3), (4, 4)])
def test_means_equal_those_of_the_integral_image(rows, columns):
    total = F.pad(MAPS, (1, 0, 1, 0)).cumsum(1).cumsum(2)
    strips = total[:, rows:] - total[:, :-rows]
    means = (strips[:, :, columns:] - strips[:, :, :-columns]) / (rows * columns)
    torch.testing.assert_close(window_means(MAPS, (rows, columns)), means, rtol=1e-10, atol=1e-12)


def test_a_box_is_exact_in_pixels():
    maps = torch.zeros(2, 4, 7)
    maps[0, 1:3, 2:5] = 1.0
    maps[1, 2:4, 4:7] = 0.5
    # A cell is 10 pixels high and 6 wide.
    assert best_window(maps, (2, 3), picture=(40, 42)).tolist() == [[12, 10, 30, 30], [24, 20, 42, 40]]
    assert best_window(maps, (2, 3)).tolist() == [[2, 1, 5, 3], [4, 2, 7, 4]]


def test_of_equal_windows_the_first_counts():
    assert best_window(torch.full((1, 50, 70), 0.1), (3, 5)).tolist() == [[0, 0, 5, 3]]
    maps = torch.zeros(1, 8, 8)
    maps[0, 5, 1:3] = maps[0, 2, 5:7] = 0.3
    assert best_window(maps, (1, 2)).tolist() == [[5, 2, 7, 3]]


def test_channels_are_averaged_first():
    features = torch.randn(3, 5, 10, 14, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(window_means(features, 3), window_means(features.mean(1), 3), rtol=1e-5, atol=1e-6)


def test_a_large_value_far_away_does_not_disturb_the_means():
    maps = torch.zeros(1, 20, 20)
    maps[0, 0, 0], maps[0, 15, 15] = 1e6, 1e-3
    means = window_means(maps, 2)
    assert float(means[0, 15, 15]) == pytest.approx(1e-3 / 4, rel=1e-5)


def test_moving_the_map_moves_the_box():
    maps = torch.zeros(1, 12, 16)
    maps[0, 2:5, 3:7] = torch.rand(3, 4)
    here, there = best_window(maps, (3, 4)), best_window(maps.roll((4, 6), (1, 2)), (3, 4))
    assert (there - here).tolist() == [[6, 4, 6, 4]]


def test_an_empty_batch_gives_no_boxes():
    assert best_window(torch.zeros(0, 5, 6), 2).shape == (0, 4)


@pytest.mark.parametrize("maps, size, error, says", [
    (torch.zeros(2, 4, 5), (5, 1), ValueError, "5 × 1 cells does not fit into maps of 4 × 5"),
    (torch.zeros(2, 4, 5), 0, ValueError, "does not fit"),
    (torch.zeros(4, 5), 2, ValueError, r"\(N, h, w\) or \(N, C, h, w\)"),
    (torch.zeros(2, 4, 5, dtype=torch.int64), 2, TypeError, "floating-point"),
    ([[1.0]], 1, TypeError, "floating-point"),
    (torch.full((1, 4, 5), float("nan")), 2, ValueError, "NaN or infinite"),
])
def test_bad_input_is_refused_in_one_sentence(maps, size, error, says):
    with pytest.raises(error, match=says) as refused:
        best_window(maps, size)
    assert "\n" not in str(refused.value)


def test_overlap_by_hand():
    box = torch.tensor([0.0, 0, 4, 4]).expand(5, 4)
    truth = torch.tensor([[0.0, 0, 4, 4], [1, 1, 4, 4], [4, 0, 8, 4], [2, 0, 6, 4], [10, 10, 12, 12]])
    torch.testing.assert_close(overlap(box, truth), torch.tensor([1, 9 / 16, 0, 1 / 3, 0]))
    assert overlap(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0]


def test_overlap_equals_torchvisions():
    corners = torch.rand(2, 50, 2, 2, generator=torch.Generator().manual_seed(2)).sort(2).values.flatten(2)
    torch.testing.assert_close(overlap(*corners), torchvision.ops.box_iou(*corners).diagonal())


def test_boxes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="two tensors of boxes"):
        overlap(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="ends before it begins"):
        overlap(torch.tensor([[3.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1, 1]]))
