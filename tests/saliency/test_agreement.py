import copy

import pytest
import torch
from torch import nn

from attnlib.backbones import small
from attnlib.saliency.agreement import auc, layers_from_top, pointing_game, randomised, rank_correlation

MAPS = torch.randn(6, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MASKS = torch.rand(6, 10, 14, generator=torch.Generator().manual_seed(1)) < 0.2


def at(*places, size=(10, 14)):
    """A mask (1, H, W) that is true at these places."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    for row, column in places:
        mask[0, row, column] = True
    return mask


# -- the pointing game ------------------------------------------------------------------------------------------------


def test_a_hit_is_a_maximum_on_the_object():
    map = torch.zeros(2, 10, 14)
    map[:, 3, 5] = 1.0
    masks = torch.cat([at((3, 5), (3, 6)), at((3, 6), (4, 5))])
    found = pointing_game(map, masks)
    assert found.tolist() == [1, 0] and found.dtype == torch.float64


def test_equals_the_naive_loop():
    best = [divmod(int(map.flatten().argmax()), 14) for map in MAPS]
    assert pointing_game(MAPS, MASKS).tolist() == [float(mask[place]) for place, mask in zip(best, MASKS)]


@pytest.mark.parametrize("tolerance, hit", [(0, 0), (4.9, 0), (5, 1), (7, 1), (1000, 1), (float("inf"), 1)])
def test_tolerance_is_a_distance_in_pixels(tolerance, hit):
    map = at((1, 2)).float()
    assert pointing_game(map, at((4, 6)), tolerance).item() == hit  # 3 and 4 pixels away: 5


def test_tolerance_does_not_reach_around_the_edge():
    assert pointing_game(at((0, 13)).float(), at((1, 0)), 3).item() == 0


def test_several_maxima_hit_with_their_share():
    map = torch.zeros(1, 10, 14)
    map[0, 0, :4] = 1.0
    assert pointing_game(map, at((0, 0), (5, 5))).item() == 0.25


def test_a_constant_map_hits_as_often_as_chance():
    found = pointing_game(torch.zeros(6, 10, 14), MASKS)
    torch.testing.assert_close(found, MASKS.double().mean((1, 2)))


def test_magnitude_does_not_count():
    map = -5 * at((2, 2)).double()
    map[0, 4, 4] = 1.0
    assert pointing_game(map, at((4, 4))).item() == 1


# -- AUC --------------------------------------------------------------------------------------------------------------


def test_auc_equals_the_naive_pairs():
    coarse = MAPS.round()  # many ties
    for maps in (MAPS, coarse):
        expected = []
        for map, mask in zip(maps, MASKS):
            inside, outside = map[mask][:, None], map[~mask]
            expected.append(((inside > outside).double() + 0.5 * (inside == outside)).mean())
        torch.testing.assert_close(auc(maps, MASKS), torch.stack(expected), rtol=1e-14, atol=0)


def test_auc_equals_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    expected = [metrics.roc_auc_score(mask.flatten(), map.flatten()) for map, mask in zip(MAPS.round(), MASKS)]
    torch.testing.assert_close(auc(MAPS.round(), MASKS), torch.tensor(expected, dtype=torch.float64))


def test_auc_by_hand():
    map = torch.tensor([[[3.0, 1, 2, 2]]])
    mask = torch.tensor([[[True, False, True, False]]])
    assert auc(map, mask).item() == (1 + 1 + 1 + 0.5) / 4


def test_auc_of_perfect_opposite_and_constant_maps():
    assert (auc(MASKS.double(), MASKS) == 1).all() and (auc(-MASKS.double(), MASKS) == 0).all()
    assert (auc(torch.full((6, 10, 14), 0.3), MASKS) == 0.5).all()


def test_auc_knows_only_the_order():
    assert torch.equal(auc(MAPS, MASKS), auc(MAPS.exp() * 7 - 2, MASKS))
    torch.testing.assert_close(auc(MAPS, MASKS), 1 - auc(-MAPS, MASKS))


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pointing_game, auc])
def measure(request):
    return request.param


def test_pictures_of_a_batch_do_not_see_each_other(measure):
    assert torch.equal(measure(MAPS, MASKS)[2:3], measure(MAPS[2:3], MASKS[2:3]))


def test_a_channel_of_one_and_other_precisions(measure):
    expected = measure(MAPS.half().double(), MASKS)
    assert torch.equal(measure(MAPS.half()[:, None], MASKS[:, None]), expected)
    assert measure(MAPS[:0], MASKS[:0]).shape == (0,)


def test_an_empty_mask_has_no_score(measure):
    masks = MASKS.clone()
    masks[1] = False
    found = measure(MAPS, masks)
    assert found.isnan().tolist() == [False, True, False, False, False, False]


def test_a_full_mask_is_always_hit_and_has_no_area():
    full = torch.ones_like(MASKS)
    assert (pointing_game(MAPS, full) == 1).all() and auc(MAPS, full).isnan().all()


def test_one_pixel(measure):
    found = measure(torch.ones(2, 1, 1), torch.tensor([True, False])[:, None, None])
    assert found.isnan().tolist() == ([False, True] if measure is pointing_game else [True, True])


@pytest.mark.parametrize("maps, masks, error, says", [
    (MAPS.long(), MASKS, TypeError, "floating-point"), (MAPS.numpy(), MASKS, TypeError, "not ndarray"),
    (MAPS, MASKS.float(), TypeError, "bool tensor"), (MAPS[0], MASKS[0], ValueError, "same shape (N, H, W)"),
    (MAPS[:, :5], MASKS, ValueError, "resized first"), (MAPS[..., :0], MASKS[..., :0], ValueError, "one pixel"),
    (MAPS[:, None].expand(-1, 2, -1, -1), MASKS, ValueError, "same shape"),
    (MAPS / 0, MASKS, ValueError, "NaN or infinite"),
])
def test_bad_input_is_refused_in_one_sentence(measure, maps, masks, error, says):
    with pytest.raises(error) as refused:
        measure(maps, masks)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_bad_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="from 0 up"):
        pointing_game(MAPS, MASKS, tolerance)


# -- rank correlation --------------------------------------------------------------------------------------------------


def test_rank_correlation_equals_scipys():
    stats = pytest.importorskip("scipy.stats")
    others = MAPS.flip(0) + 0.5 * MAPS
    others[:, 2:5] = others[:, 2:5].round()  # with ties
    expected = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(MAPS, others)]
    found = rank_correlation(MAPS, others)
    assert found.tolist() == pytest.approx(expected, abs=1e-12) and found.dtype == torch.float64


def test_rank_correlation_knows_only_the_order():
    torch.testing.assert_close(rank_correlation(MAPS, MAPS.exp()), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(MAPS, -3 * MAPS), -torch.ones(6, dtype=torch.float64))
    assert torch.equal(rank_correlation(MAPS, MAPS.flip(2)), rank_correlation(MAPS.flip(2), MAPS))


def test_a_constant_map_has_no_order():
    found = rank_correlation(MAPS[:2], torch.stack([MAPS[1], torch.full((10, 14), 0.3, dtype=torch.float64)]))
    assert found.isnan().tolist() == [False, True]


def test_rank_correlation_refuses_maps_of_other_shapes():
    with pytest.raises(ValueError, match="same shape"):
        rank_correlation(MAPS, MAPS[:, 1:])
    with pytest.raises(TypeError, match="floating-point"):
        rank_correlation(MAPS, MASKS)


def test_a_channel_of_a_larger_tensor_brings_no_warning(recwarn):
    both = torch.stack([MAPS, MAPS], 1)
    assert auc(both[:, 1], MASKS).equal(auc(MAPS, MASKS))
    torch.testing.assert_close(rank_correlation(both[:, 1], MAPS), torch.ones(6, dtype=torch.float64))
    assert not recwarn.list


# -- randomised weights -----------------------------------------------------------------------------------------------

TOP = ["head", "stages.1.norm", "stages.1.conv", "stages.0.norm", "stages.0.conv"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = small(3, 4)
    network.train()(torch.randn(8, 3, 12, 10))  # so that batch normalisation has counted something
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)  # so that none is at its first value
    return network.eval()


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(before, after):
    return all(torch.equal(before[name], after[name]) for name in before)


def changed(before, network):
    """Names of the layers that differ."""
    after = network.state_dict()
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_layers_are_named_from_the_top(network):
    assert layers_from_top(network) == TOP


@pytest.mark.parametrize("depth", range(6))
def test_a_cascade_goes_from_the_top_down(network, depth):
    before = state(network)
    with randomised(network, depth) as same_one:
        assert same_one is network and changed(before, network) == set(TOP[:depth])
    assert same(before, network.state_dict())


def test_deeper_cascades_hold_the_same_draws_further_up(network):
    with randomised(network, 1):
        head = network.head.weight.clone()
    with randomised(network, 5):
        assert torch.equal(network.head.weight, head)


@pytest.mark.parametrize("layers, expected", [
    ("stages.0.conv", {"stages.0.conv"}), ("stages.1.*", {"stages.1.conv", "stages.1.norm"}),
    (["head", "*.0.norm"], {"head", "stages.0.norm"}), (None, set(TOP)),
])
def test_layers_by_name(network, layers, expected):
    before = state(network)
    with randomised(network, layers):
        assert changed(before, network) == expected
    assert same(before, network.state_dict())


def test_everything_is_restored_after_an_exception(network):
    before, parameters = state(network), list(network.parameters())
    with pytest.raises(KeyError), randomised(network):
        network.train()(torch.randn(8, 3, 12, 10))  # also what batch normalisation counts meanwhile
        raise KeyError
    assert same(before, network.state_dict())
    assert all(a is b and a.requires_grad for a, b in zip(network.parameters(), parameters))


def test_everything_is_restored_where_a_layer_fails_to_be_drawn(network):
    before = state(network)
    network.stages[0].conv.reset_parameters = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError), randomised(network):
        pass
    assert same(before, network.state_dict())


def test_the_seed_decides_and_nobody_else_notices(network):
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(5)
        with randomised(network, seed=seed):
            draws.append(network.head.weight.clone())
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_gradients_flow_inside(network):
    x = torch.randn(2, 3, 12, 10, requires_grad=True)
    (plain,) = torch.autograd.grad(network(x).sum(), x)
    with randomised(network, 1):
        (other,) = torch.autograd.grad(network(x).sum(), x)
    (again,) = torch.autograd.grad(network(x).sum(), x)
    assert torch.equal(plain, again) and not torch.allclose(plain, other)


def test_parameters_without_a_reset_keep_their_mean_and_spread():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(3 + 2 * torch.randn(10_000, generator=torch.Generator().manual_seed(0)))
            self.equal = nn.Parameter(torch.full((5,), 0.7))

    module = Scaled()
    twin = copy.deepcopy(module)
    with randomised(module):
        assert not torch.equal(module.scale, twin.scale)
        assert module.scale.mean().item() == pytest.approx(3, abs=0.1)
        assert module.scale.std().item() == pytest.approx(2, abs=0.1)
        torch.testing.assert_close(module.equal, twin.equal)
    assert torch.equal(module.scale, twin.scale) and torch.equal(module.equal, twin.equal)


def test_attention_pooling_is_one_of_the_layers():
    from attnlib import create

    network = nn.Sequential(nn.Conv2d(3, 8, 3), create("attention_pool", 8), nn.Flatten(), nn.Linear(8, 2))
    assert layers_from_top(network) == ["3", "1.key", "1", "0"]
    before = state(network)
    with randomised(network, "1"):
        assert changed(before, network) == {"1"}
    assert same(before, network.state_dict())


@pytest.mark.parametrize("layers, says", [
    (6, "0 to 5 can be"), (-1, "0 to 5 can be"), ("stages.7", "no layer with parameters is called 'stages.7'"),
    (["head", "heads"], "'heads'; there are: head, stages.1.norm"),
])
def test_unknown_layers_are_refused(network, layers, says):
    with pytest.raises(ValueError, match=says), randomised(network, layers):
        pass


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameters"), randomised(nn.ReLU()):
        pass
