import pytest
import torch

from attnlib.data.fixations import Fixations

# Two pictures of 4 rows and 6 columns, three observers; the last one saw nothing of the first picture.
PATHS = [
    [[(0.0, 0.0), (5.99, 3.5), (5.2, 3.9)], [(2.5, 1.0)], []],
    [[(3.0, 2.0)], [], [(3.9, 2.9), (0.5, 3.0)]],
]
SEEN = Fixations.of(PATHS, (4, 6))


def test_every_fixation_lands_in_its_pixel():
    expected = torch.zeros(2, 4, 6, dtype=torch.float64)
    expected[0, 0, 0], expected[0, 3, 5], expected[0, 1, 2] = 1, 2, 1
    expected[1, 2, 3], expected[1, 3, 0] = 2, 1
    assert torch.equal(SEEN.counts(), expected) and len(SEEN) == 7
    assert (SEEN.pictures, SEEN.observers) == (2, 3) and SEEN.picture.tolist() == [0] * 4 + [1] * 3
    assert SEEN.observer.tolist() == [0, 0, 0, 1, 0, 2, 2]


def test_observers_and_pictures_can_be_chosen():
    assert SEEN.by(0).counts().sum() == 4 and SEEN.by(0, 2).counts().sum() == 6
    assert len(SEEN.by(2).where(SEEN.by(2).picture == 0)) == 0
    swapped = SEEN.on([1, 0])
    assert torch.equal(swapped.counts(), SEEN.counts().flip(0)) and swapped.observers == 3
    assert torch.equal(SEEN.on(torch.tensor([1])).counts(), SEEN.counts()[1:])
    for wrong in ([], [2], [0, 0], [-1]):
        with pytest.raises(ValueError, match="one or more different pictures from 0 to 1"):
            SEEN.on(wrong)


def test_resizing_keeps_every_fixation_in_proportion():
    large = SEEN.resized((8, 18))
    assert torch.allclose(large.x, SEEN.x * 3) and torch.allclose(large.y, SEEN.y * 2)
    tiny = SEEN.resized((1, 1))
    assert tiny.counts().flatten().tolist() == [4, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_pushes_no_fixation_out(dtype):
    edge = torch.nextafter(torch.tensor([800.0], dtype=dtype), torch.tensor([0.0], dtype=dtype))
    first = torch.zeros(1, dtype=torch.long)
    at_the_edge = Fixations(edge, torch.zeros_like(edge), first, first, (600, 800), 1, 1)
    for width in (1, 3, 7, 77, 150, 1999):
        assert at_the_edge.resized((5, width)).counts()[0, 0, width - 1] == 1


def test_durations_follow_their_fixations():
    timed = Fixations(SEEN.x, SEEN.y, SEEN.picture, SEEN.observer, (4, 6), 2, 3, torch.arange(7.0))
    assert timed.by(2).duration.tolist() == [5, 6] and timed.on([1]).duration.tolist() == [4, 5, 6]
    assert timed.to("cpu").duration.tolist() == list(range(7)) and timed.resized((2, 2)).duration is timed.duration


@pytest.mark.parametrize("place", [(-0.01, 1), (6.0, 1), (1, -3), (1, 4.0), (float("nan"), 1), (1, float("inf"))])
def test_a_place_outside_is_refused_or_dropped_on_request(place):
    paths = [[[(1, 1), place]], [[]]]
    with pytest.raises(ValueError, match="1 of 2 fixations lie outside the picture of 4×6 pixels; .*outside='drop'"):
        Fixations.of(paths, (4, 6))
    kept = Fixations.of(paths, (4, 6), outside="drop")
    assert kept.counts().sum() == 1 and kept.counts()[0, 1, 1] == 1 and kept.pictures == 2


def test_nobody_saw_anything():
    nothing = Fixations.of([[[], []]], (3, 5))
    assert len(nothing) == 0 and torch.equal(nothing.counts(), torch.zeros(1, 3, 5, dtype=torch.float64))
    assert len(nothing.by(1)) == 0 and nothing.resized((1, 1)).counts().shape == (1, 1, 1)


@pytest.mark.parametrize("change, says", [
    ({"observer": torch.zeros(6, dtype=torch.long)}, "every fixation has one of each"),
    ({"picture": SEEN.picture + 1}, "picture of a fixation is a whole number from 0 to 1"),
    ({"observer": SEEN.observer - 1}, "observer of a fixation is a whole number from 0 to 2"),
    ({"observer": SEEN.observer.double()}, "observer of a fixation is a whole number"),
    ({"size": (0, 6)}, "at least 1×1 pixel"), ({"observers": 0}, "one observer"),
])
def test_what_does_not_fit_is_refused(change, says):
    fields = {name: getattr(SEEN, name) for name in ("x", "y", "picture", "observer", "size", "pictures", "observers")}
    with pytest.raises(ValueError, match=says):
        Fixations(**fields | change)


def test_bad_scanpaths_are_refused():
    with pytest.raises(ValueError, match="an entry for every observer"):
        Fixations.of([[[]], [[], []]], (4, 6))
    with pytest.raises(ValueError, match="'error' or 'drop', not 'clip'"):
        Fixations.of(PATHS, (4, 6), outside="clip")
    with pytest.raises(ValueError):
        Fixations.of([], (4, 6))
