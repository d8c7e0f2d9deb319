import pytest
import torch
from torch import nn

from attnlib import attentions, create, held, intervene, record, shuffled, switch_off
from attnlib.channel.se import SE


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), create("se", 16, reduction=4), nn.Conv2d(16, 8, 3), create("se", 8, reduction=2),
        nn.Flatten(),
    ).double()


@pytest.fixture
def x():
    return torch.randn(4, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_recording_by_qualified_name(network, x):
    with record(network) as weights:
        network(x)
    assert list(weights) == ["1", "3"]
    assert weights["1"].shape == (4, 16, 1, 1) and weights["3"].shape == (4, 8, 1, 1)
    assert not weights["1"].requires_grad


def test_recording_only_some(network, x):
    with record(network, only="3") as weights:
        network(x)
    assert list(weights) == ["3"]


def test_every_pass_or_the_newest(network, x):
    with record(network) as newest, record(network, every=True) as every:
        network(x)
        network(x * 2)
    assert len(newest.all("1")) == 1 and len(every.all("1")) == 2
    assert torch.equal(newest["1"], every.all("1")[1]) and not torch.equal(*every.all("1"))


def test_weights_can_keep_their_graph(network, x):
    with record(network, keep_graph=True) as weights:
        network(x).sum().backward()
    assert weights["1"].requires_grad


def test_what_has_not_run_says_so(network):
    with record(network) as weights:
        pass
    assert len(weights) == 0
    with pytest.raises(KeyError, match="has not run"):
        weights["1"]
    with pytest.raises(KeyError, match="there are: 1, 3"):
        weights["layer1"]


def test_off_is_the_network_without_gates(network, x):
    plain = nn.Sequential(network[0], network[2], network[4])
    with switch_off(network):
        assert torch.equal(network(x), plain(x))
    assert not torch.equal(network(x), plain(x))


def test_off_for_one_only(network, x):
    with switch_off(network, only="1"), record(network) as weights:
        network(x)
    assert torch.equal(weights["1"], torch.ones(4, 16, 1, 1, dtype=torch.float64))
    assert not torch.equal(weights["3"], torch.ones_like(weights["3"]))


def test_shuffling_is_a_permutation_without_fixed_points(network, x):
    with record(network, only="1") as before:
        network(x)
    with intervene(network, shuffled(seed=3), only="1"), record(network, only="1") as after:
        network(x)
    source = [[torch.equal(a, b) for b in before["1"]].index(True) for a in after["1"]]
    assert sorted(source) == [0, 1, 2, 3] and all(i != s for i, s in enumerate(source))


def test_shuffling_one_picture_is_refused(network, x):
    with pytest.raises(ValueError, match="at least two pictures"), intervene(network, shuffled()):
        network(x[:1])


@pytest.mark.parametrize("values", [0.25, torch.full((16,), 0.25), torch.full((1, 16, 1, 1), 0.25), [0.25] * 16])
def test_held_at_given_values(network, x, values):
    with intervene(network, held(values), only="1"), record(network) as weights:
        network(x)
    assert torch.equal(weights["1"], torch.full((4, 16, 1, 1), 0.25, dtype=torch.float64))


def test_values_that_do_not_fit_are_refused(network, x):
    with pytest.raises(ValueError, match=r"do not fit weights of shape \(4, 16, 1, 1\)"):
        with intervene(network, held([0.1, 0.2]), only="1"):
            network(x)


def test_an_edit_of_another_shape_is_refused(network, x):
    with pytest.raises(ValueError, match=r"the edit returned \(4, 1, 1, 1\)"):
        with intervene(network, lambda weights, x, attention: weights[:, :1], only="1"):
            network(x)


class Whole(SE):
    """A mechanism with another one in its weights."""

    made_of_parts = True

    def __init__(self):
        super().__init__(3, reduction=1)
        self.part = SE(3, reduction=1)

    def attend(self, x):
        return super().attend(x) * self.part.weights(self.part.attend(x), x, self.part)


@pytest.mark.parametrize("network, whole", [(Whole(), ""), (nn.Sequential(Whole()), "0")])
def test_parts_of_a_mechanism_are_edited_only_by_name(network, whole, x):
    network, x, part = network.double(), x[:2], f"{whole}.part".removeprefix(".")
    with record(network) as seen:
        network(x)
    with intervene(network, shuffled()), record(network) as moved:
        network(x)
    assert set(seen) == {whole, part}
    assert torch.equal(moved[whole], seen[whole].flip(0)) and torch.equal(moved[part], seen[part])
    with intervene(network, shuffled(), only="*part"), record(network) as moved:
        network(x)
    assert torch.equal(moved[part], seen[part].flip(0))
    assert not torch.equal(moved[whole], seen[whole])


def test_mechanisms_that_are_no_parts_are_edited_wherever_they_are(x):
    class Beside(Whole):
        made_of_parts = False

    network = nn.ModuleDict({"gate": Whole(), "gate2": SE(3, reduction=1), "gate3": Beside()}).double()
    with switch_off(network):
        edited = [name for name, a in attentions(network).items() if a.weights.edits]
    assert edited == ["gate", "gate2", "gate3", "gate3.part"]


def test_everything_is_restored_after_an_exception(network, x):
    before = network(x)
    with pytest.raises(RuntimeError, match="on purpose"):
        with switch_off(network), intervene(network, held(0.0)), record(network):
            raise RuntimeError("on purpose")
    assert torch.equal(network(x), before) and not network[1].weights.watched


def test_nested_edits_apply_in_order_and_recordings_see_the_result(network, x):
    with record(network, only="1") as outer, intervene(network, held(0.5)):
        with intervene(network, lambda weights, x, attention: weights * weights), record(network, only="1") as inner:
            network(x)
    assert (outer["1"] == 0.25).all() and (inner["1"] == 0.25).all()


def test_blocks_may_end_in_any_order(network, x):
    off, twice = switch_off(network), intervene(network, lambda weights, x, attention: 2 * weights)
    off.__enter__()
    twice.__enter__()
    off.__exit__(None, None, None)
    with record(network, only="1") as weights:
        network(x)
    assert weights["1"].max() > 1  # doubled, no longer off
    twice.__exit__(None, None, None)
    assert not network[1].weights.watched


def test_a_network_without_attention_says_what_to_do():
    with pytest.raises(ValueError, match="attnlib.insert"), record(nn.Conv2d(3, 3, 1)):
        pass


def test_a_pattern_that_matches_nothing_lists_the_names(network):
    with pytest.raises(ValueError, match="there are: 1, 3"), switch_off(network, only="layer*"):
        pass
