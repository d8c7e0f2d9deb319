import math

import pytest
import torch

from attnlib.saliency.object_measures import adaptive_f, e_curve, f_curve, mae, max_e, max_f, s_measure

SIZE, N = (10, 14), 6
MEASURES = {"mae": mae, "f_curve": f_curve, "max_f": max_f, "adaptive_f": adaptive_f, "e_curve": e_curve,
            "max_e": max_e, "s_measure": s_measure}


def example(seed=0):
    """Noisy predictions of rectangles. No centroid lies at half a pixel with an even number below it."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.zeros(N, *SIZE, dtype=torch.bool)
    for n in range(N):
        masks[n, 1 + n : 4 + n, 2 : 5 + 2 * (n % 3)] = True
    predictions = 0.7 * masks + 0.3 * torch.rand(N, *SIZE, dtype=torch.float64, generator=rng)
    predictions[0] = torch.rand(SIZE, dtype=torch.float64, generator=rng)
    return predictions, masks


PREDICTIONS, MASKS = example()


def close(ours, theirs, tolerance=1e-12):
    theirs = torch.as_tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


# --- by hand ---------------------------------------------------------------------------------------------------------

ROW = torch.tensor([[[1.0, 0.6, 0.2, 0.0]]], dtype=torch.float64)
LEFT = torch.tensor([[[True, True, False, False]]])


def test_mean_absolute_error_by_hand():
    close(mae(ROW, LEFT), [(0.4 + 0.2) / 4])


def test_f_by_hand():
    curve = f_curve(ROW, LEFT)[0]
    # Everything, three pixels up to 51, two up to 153, then one.
    everything, three, two, one = (1.3 * hit / (0.3 * 2 + found) for hit, found in ((2, 4), (2, 3), (2, 2), (1, 1)))
    assert two == 1
    assert curve.shape == (256,)
    close(curve[[0, 1, 51, 52, 153, 154, 255]], [everything, three, three, two, two, one, one])
    close(max_f(ROW, LEFT), [1.0])
    close(f_curve(ROW, LEFT, beta2=1.0)[0, [0, 255]], [2 / 3, 2 / 3])


def test_adaptive_f_by_hand():
    # Twice the mean is 0.9.
    close(adaptive_f(ROW, LEFT), [1.3 / (0.6 + 1)])
    # Never above 1: with a mean of 3/4, what has probability 1 is found.
    close(adaptive_f(torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]), LEFT), [1.3 * 2 / (0.6 + 3)])


def test_e_by_hand():
    curve = e_curve(ROW, LEFT)[0]
    close(curve[100], 1.0)  # the mask itself
    close(curve[0], 0.25)  # all is found: nothing to align
    # Three found: a is 1/4 or −3/4, b is ±1/2. Two pixels with a = 1/4, b = 1/2, one with −1/2, one with −3/4 and −1/2.
    pairs = [(0.25, 0.5), (0.25, 0.5), (0.25, -0.5), (-0.75, -0.5)]
    close(curve[30], sum((1 + 2 * a * b / (a * a + b * b)) ** 2 / 4 for a, b in pairs) / 4)
    close(max_e(ROW, LEFT), [1.0])


def test_s_by_hand():
    # Objects: means 0.8 and 0.9 (of 1 − prediction), deviations of 0.4 and 0.2 around them.
    inside = 2 * 0.8 / (0.8**2 + 1 + math.sqrt(0.08))
    outside = 2 * 0.9 / (0.9**2 + 1 + math.sqrt(0.02))
    close(s_measure(ROW, LEFT, alpha=1), [(inside + outside) / 2])
    # Regions: the centroid, 0.5, is rounded up, so two pixels are left of the cut. Left: the mask is constant, no
    # covariance. Right: the mask is zero there.
    close(s_measure(ROW, LEFT, alpha=0), [0.0])
    close(s_measure(LEFT.double(), LEFT, alpha=0), [1.0])


def test_similar_structure_by_hand():
    mask = torch.tensor([[[True, False, True, False]]])  # the centroid is the second pixel
    x = torch.tensor([[[0.9, 0.3, 0.5, 0.5]]], dtype=torch.float64)
    mean_x, mean_y, var_x, var_y, cov = 0.6, 0.5, 0.18, 0.5, 0.3
    left = 4 * mean_x * mean_y * cov / ((mean_x**2 + mean_y**2) * (var_x + var_y))
    close(s_measure(x, mask, alpha=0), [left / 2])  # right of it the prediction is constant, and the mask is not


# --- naive, and against others ---------------------------------------------------------------------------------------


def naive_s(x, y, alpha=0.5):
    """The published definition on lists, region by region."""
    height, width = y.shape
    rows, columns = y.nonzero().double().mean(0)
    cut_row, cut_column = math.floor(rows + 0.5) + 1, math.floor(columns + 0.5) + 1

    def part(values):
        mean = values.mean()
        return 2 * mean / (mean**2 + 1 + (values.std(correction=1) if len(values) > 1 else 0))

    objects = y.double().mean() * part(x[y]) + (1 - y.double().mean()) * part(1 - x[~y])
    regions = 0.0
    for rows in (slice(0, cut_row), slice(cut_row, height)):
        for columns in (slice(0, cut_column), slice(cut_column, width)):
            a, b = x[rows, columns].flatten(), y[rows, columns].flatten().double()
            if not len(a):
                continue
            cov = torch.cov(torch.stack([a, b])) if len(a) > 1 else torch.zeros(2, 2, dtype=torch.float64)
            above, under = 4 * a.mean() * b.mean() * cov[0, 1], (a.mean()**2 + b.mean()**2) * (cov[0, 0] + cov[1, 1])
            regions += len(a) / (height * width) * (1.0 if under == 0 else float(above / under))
    return max(0.0, float(alpha * objects + (1 - alpha) * regions))


def test_s_equals_the_naive_loop():
    for seed in range(3):
        predictions, masks = example(seed)
        for alpha in (0, 0.3, 0.5, 1):
            expected = [naive_s(x, y, alpha) for x, y in zip(predictions, masks)]
            close(s_measure(predictions, masks, alpha=alpha), expected)


def test_curves_equal_one_threshold_at_a_time():
    for threshold in (0, 1, 77, 200, 255):
        found = (PREDICTIONS * 255).floor() >= threshold
        right = (found & MASKS).sum((1, 2)).double()
        precision, recall = right / found.sum((1, 2)).clamp(min=1), right / MASKS.sum((1, 2))
        both = 0.3 * precision + recall
        expected = torch.where(both > 0, 1.3 * precision * recall / torch.where(both > 0, both, 1), 0)
        close(f_curve(PREDICTIONS, MASKS)[:, threshold], expected)
        a, b = (part.double() - part.double().mean((1, 2), keepdim=True) for part in (found, MASKS))
        close(e_curve(PREDICTIONS, MASKS)[:, threshold], ((1 + 2 * a * b / (a * a + b * b)) ** 2 / 4).mean((1, 2)))


def test_equals_pysodmetrics():
    theirs = pytest.importorskip("py_sod_metrics", reason="pysodmetrics is not installed", exc_type=ImportError)
    pixels = SIZE[0] * SIZE[1]
    for seed in range(3):
        predictions, masks = example(seed)
        for n in range(N):
            here, there = predictions[n].numpy(), masks[n].numpy()
            measures = {"mae": theirs.MAE(), "f": theirs.Fmeasure(0.3), "s": theirs.Smeasure(), "e": theirs.Emeasure()}
            for measure in measures.values():
                measure.step(here, there, normalize=False)
            results = {name: measure.get_results() for name, measure in measures.items()}
            close(mae(predictions, masks)[n], results["mae"]["mae"])
            close(s_measure(predictions, masks)[n], results["s"]["sm"], 1e-10)
            close(adaptive_f(predictions, masks)[n], results["f"]["fm"]["adp"])
            # Their thresholds fall, and they divide by one pixel less.
            close(f_curve(predictions, masks)[n].flip(0), results["f"]["fm"]["curve"].copy())
            curve = torch.from_numpy(results["e"]["em"]["curve"].copy()) * (pixels - 1) / pixels
            close(e_curve(predictions, masks)[n].flip(0), curve, 1e-10)


# --- properties ------------------------------------------------------------------------------------------------------


def test_the_mask_itself_is_perfect():
    exact = MASKS.double()
    assert (mae(exact, MASKS) == 0).all()
    for measure in (max_f, adaptive_f, max_e, s_measure):
        close(measure(exact, MASKS), [1.0] * N)


@pytest.mark.parametrize("name", MEASURES)
def test_every_picture_is_scored_by_itself(name):
    together = MEASURES[name](PREDICTIONS, MASKS)
    assert together.dtype == torch.float64 and together.shape[0] == N
    for n in range(N):
        close(together[n], MEASURES[name](PREDICTIONS[n : n + 1], MASKS[n : n + 1])[0])


@pytest.mark.parametrize("name", MEASURES)
def test_masks_may_be_numbers(name):
    expected = MEASURES[name](PREDICTIONS, MASKS)
    for dtype in (torch.float32, torch.uint8, torch.int64):
        assert torch.equal(MEASURES[name](PREDICTIONS, MASKS.to(dtype)), expected)


def test_float32_is_as_good():
    for measure in (mae, adaptive_f, s_measure):
        single, double = measure(PREDICTIONS.float(), MASKS), measure(PREDICTIONS, MASKS)
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
def test_an_empty_mask(value):
    flat, empty = torch.full((1, *SIZE), value, dtype=torch.float64), torch.zeros(1, *SIZE, dtype=torch.bool)
    close(mae(flat, empty), [value])
    close(s_measure(flat, empty), [1 - value])
    for measure in (f_curve, max_f, adaptive_f):
        assert measure(flat, empty).isnan().all()
    curve = e_curve(flat, empty)[0]
    level = int(value * 255)
    assert (curve[: level + 1] == 0).all() and (curve[level + 1 :] == 1).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
def test_a_full_mask(value):
    flat, full = torch.full((1, *SIZE), value, dtype=torch.float64), torch.ones(1, *SIZE, dtype=torch.bool)
    close(mae(flat, full), [1 - value])
    close(s_measure(flat, full), [value])
    close(max_f(flat, full), [1.0])
    curve = e_curve(flat, full)[0]
    level = int(value * 255)
    assert (curve[: level + 1] == 1).all() and (curve[level + 1 :] == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.7, 1.0])
def test_a_constant_prediction(value):
    flat = torch.full_like(PREDICTIONS, value)
    size = MASKS.sum((1, 2)).double()
    close(max_f(flat, MASKS), 1.3 * size / (0.3 * size + 140))
    close(max_e(flat, MASKS), [0.25] * N)
    # Objects without deviation; a region is like the mask's where that is constant, too, whatever rounding does.
    share = size / 140
    objects = share * 2 * value / (value**2 + 1) + (1 - share) * 2 * (1 - value) / ((1 - value) ** 2 + 1)
    close(s_measure(flat, MASKS, alpha=1), objects)
    for n in range(N):
        row, column = (int(mean + 0.5) + 1 for mean in MASKS[n].nonzero().double().mean(0))
        parts = [part for half in MASKS[n].tensor_split((row,), 0) for part in half.tensor_split((column,), 1)]
        constant = sum(part.numel() for part in parts if part.numel() and part.all() == part.any())
        close(s_measure(flat, MASKS, alpha=0)[n], constant / 140)


def test_one_pixel():
    one, on = torch.tensor([[[0.25]]]), torch.ones(1, 1, 1, dtype=torch.bool)
    close(mae(one, on), [0.75])
    close(s_measure(one, on), [0.25])
    close(s_measure(one, ~on), [0.75])
    close(max_f(one, on), [1.0])
    close(max_e(one, ~on), [1.0])


def test_a_mask_at_the_last_column_has_no_region_beside_it():
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, :, -1] = True
    close(s_measure(PREDICTIONS[:1], mask), [naive_s(PREDICTIONS[0], mask[0])])


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_no_prediction_is_refused(name):
    measure = MEASURES[name]
    for value in (-0.01, 1.01, math.nan):
        wrong = PREDICTIONS.clone()
        wrong[1, 2, 3] = value
        with pytest.raises(ValueError, match="probabilities from 0 to 1"):
            measure(wrong, MASKS)
    for shape in (MASKS[:2], MASKS[:, :4], MASKS[0]):
        with pytest.raises(ValueError, match=r"both \(N, H, W\)"):
            measure(PREDICTIONS, shape)
    with pytest.raises(ValueError, match=r"both \(N, H, W\)"):
        measure(PREDICTIONS[:, None], MASKS[:, None])
    with pytest.raises(ValueError, match="boolean, or 0 and 1"):
        measure(PREDICTIONS, MASKS * 255)
    if name == "s_measure":
        with pytest.raises(ValueError, match="from 0 to 1, not 1.5"):
            measure(PREDICTIONS, MASKS, alpha=1.5)
