import pytest
import torch

from attnlib.saliency.graph_based import activation, concentration, graph_based, neighbourhood

SIZE = (4, 6)
MAPS = torch.rand(2, 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NEAR = neighbourhood(SIZE, 1.7)


def equilibrium(weights):
    """Where a walk with these weights of its steps ends up, by walking."""
    steps = weights / weights.sum(1, keepdim=True)
    at = torch.full((len(steps),), 1 / len(steps), dtype=torch.float64)
    for _ in range(5_000):
        at = (at + at @ steps) / 2  # standing still every other time, or it might swing for ever
    return at


def test_neighbourhood_by_hand():
    assert NEAR.shape == (24, 24) and torch.equal(NEAR, NEAR.T) and (NEAR.diagonal() == 1).all()
    # From (0, 0) to (2, 3): 13 squared places.
    assert float(NEAR[0, 2 * 6 + 3]) == pytest.approx(torch.tensor(-13 / (2 * 1.7**2)).exp().item(), rel=1e-6)


def test_activation_is_where_the_first_walk_ends_up():
    found = activation(MAPS, NEAR)
    for n in range(2):
        for c in range(3):
            values = MAPS[n, c]
            expected = equilibrium((values[:, None] - values).abs() * NEAR)
            torch.testing.assert_close(found[n, c], expected, rtol=1e-9, atol=1e-12)


def test_concentration_is_where_the_second_walk_ends_up():
    found = concentration(MAPS, NEAR)
    for n in range(2):
        for c in range(3):
            expected = equilibrium(MAPS[n, c] * NEAR)  # columns: towards q in proportion to A(q)
            torch.testing.assert_close(found[n, c], expected, rtol=1e-9, atol=1e-12)


def test_concentration_gathers():
    active = MAPS / MAPS.sum(-1, keepdim=True)
    once, twice = concentration(active, NEAR), concentration(concentration(active, NEAR), NEAR)
    entropy = [float(-(maps * maps.log()).sum(-1).mean()) for maps in (active, once, twice)]
    assert entropy == sorted(entropy, reverse=True)


def test_a_constant_map_activates_nothing():
    maps = torch.full((1, 1, 24), 0.3)
    assert (activation(maps, NEAR.float()) == 0).all() and (concentration(maps * 0, NEAR.float()) == 0).all()


def test_the_graph_can_be_small():
    picture = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    assert graph_based(picture, side=8).shape == (1, 30, 40)
    assert graph_based(picture, side=1).shape == (1, 30, 40)
    assert torch.equal(graph_based(picture, side=40), graph_based(picture, side=41))


def test_prefers_the_middle():
    # The same differences everywhere: in the middle a place has more neighbours, and the walker more ways to come.
    checks = ((torch.arange(4)[:, None] + torch.arange(6)) % 2).double()
    found = activation(checks.view(1, 1, 24), NEAR).view(4, 6)
    assert found[1:3, 2:4].min() > 1.2 * found.mean() and found[[0, 0, 3, 3], [0, 5, 0, 5]].max() < 0.8 * found.mean()


def test_impossible_graphs_are_refused():
    for options in ({"side": 0}, {"activate": 0.0}, {"concentrate": -1.0}):
        with pytest.raises(ValueError, match="at least 1 place, and both walks a positive width"):
            graph_based(torch.rand(1, 3, 8, 8), **options)
    with pytest.raises(ValueError, match="0 or more pixels"):
        graph_based(torch.rand(1, 3, 8, 8), smooth=-1.0)
